-- highwater: apply
select 1
