-- Purpose: the read model `files` as the independent truth has it.
select path, blob from files.files
