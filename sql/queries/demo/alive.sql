-- Purpose: the read model `files`, in the form of the independent truth.
select path, blob from files.files
