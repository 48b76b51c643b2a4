-- highwater: apply
select $a$ ; $b$ ; $a$; select $$never
