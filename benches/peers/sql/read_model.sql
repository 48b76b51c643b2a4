create table order_summary (
    stream text primary key,
    events int not null,
    items int not null,
    cents bigint not null,
    status text not null,
    last int not null
);
