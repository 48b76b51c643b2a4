//! Every source runs the suite of what a source must do. A new one is one line here.

mod memory;
mod table;

use highwater::testing::MemorySource;
use highwater::testing::conformance;

use self::memory::InMemory;
use self::table::InTable;

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_table_conforms() {
    conformance::run(InTable::own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_table_in_another_database_conforms() {
    conformance::run(InTable::elsewhere).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_else_made_conforms() {
    conformance::run(InTable::mapped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_in_memory_conforms() {
    conformance::run(async || InMemory(MemorySource::new("default"))).await;
}
