/* highwater
events = ["A"]
*/
-- highwater: apply
select 1;
