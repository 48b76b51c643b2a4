-- highwater: apply

select 'ÿ'
