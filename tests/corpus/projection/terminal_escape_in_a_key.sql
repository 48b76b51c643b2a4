/* highwater
"\u001b[31mred" = 1
*/
-- highwater: apply
select 1
