use super::*;

fn parse(text: &str) -> Connector {
    Connector::parse(text).expect(text)
}

#[test]
fn neither_debug_nor_display_show_the_password() {
    let connector = parse("postgresql://app:hunter2@db.example/shop");
    assert_eq!(connector.to_string(), "shop on db.example:5432 as app");
    assert!(!format!("{connector:?}").contains("hunter2"));
    assert!(!format!("{connector:#?}").contains("hunter2"));
}
