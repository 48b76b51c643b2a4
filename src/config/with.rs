//! Settings as a program writes them: `Settings::default().with_lease(…)`.

use std::time::Duration;

use super::Engine;

macro_rules! with {
    ($($with:ident $field:ident: $value:ty;)+) => {
        impl Engine {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $with(mut self, $field: $value) -> Engine {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

with! {
    with_lease lease: Duration;
    with_stop_grace stop_grace: Duration;
    with_poll_slowest poll_slowest: Duration;
    with_listen listen: bool;
    with_batch_events_max batch_events_max: u32;
    with_batch_timeout batch_timeout: Duration;
    with_transaction_time transaction_time: Duration;
    with_await_disk await_disk: bool;
    with_answer_timeout answer_timeout: Duration;
    with_pool_size pool_size: u32;
    with_retry_delay_max retry_delay_max: Duration;
    with_parked_keys_max parked_keys_max: u32;
    with_dead_letters_max dead_letters_max: u32;
}
