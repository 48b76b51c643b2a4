-- highwater: up
create function f() returns int language sql begin atomic select case when true then 1 end; end;
-- highwater: apply
select f();
