/* highwater
events = ["A", "B"]
source = "default"
key = "data->>'customer'"
partitions = 4
on_error = "park"
*/
-- highwater: up
create table t (a text primary key);
-- highwater: apply
insert into t select stream from batch on conflict do nothing;
