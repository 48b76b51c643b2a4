//! The schema: made, verified, refused.

use highwater::ErrorKind;
use highwater::internal::pg::migrate::{Component, migrate, migrate_component, verify};

use crate::database::empty_database;

/// The migrations of both components, in their order.
fn all() -> Vec<(Component, &'static str)> {
    let components = Component::ALL.into_iter();
    let all = components.flat_map(|c| c.migrations().iter().map(move |m| (c, m.name)));
    all.collect()
}

#[tokio::test]
async fn a_database_of_read_models_needs_no_event_table() {
    let (mut client, _database) = empty_database().await;
    let applied = migrate_component(&mut client, Component::Engine).await;
    assert_eq!(applied.unwrap().len(), Component::Engine.migrations().len());
    let row = client
        .query_one("select to_regclass('highwater.event')::text", &[])
        .await;
    assert_eq!(row.unwrap().get::<_, Option<String>>(0), None);
    migrate_component(&mut client, Component::Log)
        .await
        .unwrap();
    verify(&client).await.unwrap();
}

#[tokio::test]
async fn an_empty_database_is_migrated_once_and_verified_then() {
    let (mut client, _database) = empty_database().await;
    let error = verify(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    assert_eq!(error.hint(), Some("run highwater init"));

    let applied = migrate(&mut client).await.unwrap();
    let names: Vec<_> = applied.iter().map(|a| (a.component, &*a.name)).collect();
    assert_eq!(names, all());
    verify(&client).await.unwrap();
    assert!(migrate(&mut client).await.unwrap().is_empty());
}

#[tokio::test]
async fn migrating_from_many_places_at_once_applies_each_migration_once() {
    let (client, database) = empty_database().await;
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move {
                let mut session = database.client().await.unwrap();
                migrate(&mut session).await.unwrap().len()
            })
        })
        .collect();
    let mut applied = 0;
    for task in tasks {
        applied += task.await.unwrap();
    }
    assert_eq!(applied, all().len());
    verify(&client).await.unwrap();
}

#[tokio::test]
async fn a_schema_of_that_name_that_is_not_ours_is_refused_and_left_alone() {
    let (mut client, _database) = empty_database().await;
    client
        .batch_execute("create schema highwater; create table highwater.tide (at int)")
        .await
        .unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    assert!(
        error
            .message()
            .contains("has a schema highwater that highwater did not make"),
        "{error}"
    );
    let error = verify(&client).await.unwrap_err();
    assert!(error.message().contains("did not make"), "{error}");
}

#[tokio::test]
async fn a_migration_that_was_applied_with_another_text_is_refused() {
    let (mut client, _database) = empty_database().await;
    migrate(&mut client).await.unwrap();
    client
        .batch_execute("update highwater.migration set hash = repeat('0', 64) where component = 'log' and number = 1")
        .await
        .unwrap();
    for error in [
        verify(&client).await.unwrap_err(),
        migrate(&mut client).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Database);
        assert!(
            error.message().contains("log migration 1 (tables)"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_an_older_binary() {
    let (mut client, _database) = empty_database().await;
    migrate(&mut client).await.unwrap();
    client
        .batch_execute(
            "insert into highwater.migration values ('engine', 999, 'future', repeat('0', 64))",
        )
        .await
        .unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    assert!(
        error.message().contains("newer than this binary"),
        "{error}"
    );
}

#[tokio::test]
async fn missing_rights_are_named_with_the_grant_to_run() {
    let (mut client, _database) = empty_database().await;
    let role = format!("hw_low_{}", std::process::id());
    client
        .batch_execute(&format!(
            "drop role if exists {role}; create role {role}; set role {role}"
        ))
        .await
        .unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    let hint = error.hint().unwrap().to_owned();
    assert!(error.message().contains(&role), "{error}");
    assert!(hint.contains("grant create on database"), "{error}");

    client
        .batch_execute(&format!(
            "reset role; create schema highwater authorization {role}; set role {role}"
        ))
        .await
        .unwrap();
    migrate(&mut client).await.unwrap();
    client
        .batch_execute(&format!(
            "reset role; drop schema highwater cascade; drop role {role}"
        ))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_role_that_may_not_read_the_schema_gets_the_grants_it_needs_as_a_hint() {
    let (mut client, _database) = empty_database().await;
    migrate(&mut client).await.unwrap();
    let role = format!("hw_blind_{}", std::process::id());
    client
        .batch_execute(&format!(
            "drop role if exists {role}; create role {role}; set role {role}"
        ))
        .await
        .unwrap();
    let error = verify(&client).await.unwrap_err();
    assert!(
        error
            .hint()
            .unwrap()
            .contains("grant usage on schema highwater"),
        "{error}"
    );
    client
        .batch_execute(&format!("reset role; drop role {role}"))
        .await
        .unwrap();
}
