-- highwater: apply
select 'a''b', E'a\'b', U&'d\0061t', "x""y", 'a'
'b';
