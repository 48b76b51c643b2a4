-- highwater: apply
select 1
-- highwater: apply
select 2
