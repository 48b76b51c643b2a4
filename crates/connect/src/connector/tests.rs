use proptest::prelude::*;

use super::*;
use crate::ErrorKind;
use crate::tls::SslMode;

fn parse(text: &str) -> Connector {
    Connector::parse(text).expect(text)
}

fn fault(text: &str) -> String {
    let error = Connector::parse(text).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::Setting);
    error.to_string()
}

#[test]
fn neither_debug_nor_display_show_the_password() {
    let connector = parse("postgresql://app:hunter2@db.example/shop");
    assert_eq!(connector.to_string(), "shop on db.example:5432 as app");
    assert!(!format!("{connector:?}").contains("hunter2"));
    assert!(!format!("{connector:#?}").contains("hunter2"));
}

#[test]
fn one_connector_makes_others() {
    let connector = parse("postgresql://app@db/shop").with_database("other");
    assert_eq!(connector.describe(), "other on db:5432 as app");
    let connector = connector.with_application_name("highwater wait");
    let name = connector.settings.application_name.as_deref();
    assert_eq!(name, Some("highwater wait"));
}

#[test]
fn what_is_left_out_has_its_default() {
    let settings = parse("postgresql://app@db").settings;
    assert_eq!(settings.database, "app");
    assert_eq!(settings.application_name, None);
    assert_eq!(settings.timeout, Some(Duration::from_secs(10)));
    assert_eq!(settings.tls.mode, SslMode::Prefer);
}

#[test]
fn several_hosts_sockets_and_addresses_are_understood() {
    let describe = |text: &str| parse(text).describe();
    assert_eq!(describe("postgresql://u@a:1,b:2/d"), "d on a:1,b:2 as u");
    assert_eq!(describe("postgresql://u@a,b/d?port=7"), "d on a:7,b:7 as u");
    assert_eq!(describe("postgresql://u@[::1]:1/d"), "d on [::1]:1 as u");
    assert_eq!(
        describe("host=/run/pg user=u dbname=d"),
        "d on /run/pg/.s.PGSQL.5432 as u"
    );
    assert_eq!(
        describe("hostaddr=127.0.0.1 user=u"),
        "u on 127.0.0.1:5432 as u"
    );
}

#[test]
fn times_have_the_units_of_libpq() {
    let settings = parse("postgresql://u@h/d?connect_timeout=3&tcp_user_timeout=2500").settings;
    assert_eq!(settings.timeout, Some(Duration::from_secs(3)));
    assert_eq!(settings.keepalive.user_timeout, Duration::from_millis(2500));
    assert_eq!(
        parse("host=h user=u connect_timeout=0").settings.timeout,
        None
    );
}

#[test]
fn what_the_user_says_wins_over_the_defaults_of_the_program() {
    let config = |text: &str| {
        let connector = parse(text).with_defaults(Defaults {
            application_name: "reports",
            options: "-c TimeZone=UTC",
        });
        connector.config(&connector.settings.endpoints[0])
    };
    let plain = config("postgresql://u@h/d");
    assert_eq!(plain.get_options(), Some("-c TimeZone=UTC"));
    assert_eq!(plain.get_application_name(), Some("reports"));
    let given = config("host=h user=u application_name=mine options='-c TimeZone=Europe/Berlin'");
    let both = "-c TimeZone=UTC -c TimeZone=Europe/Berlin";
    assert_eq!(given.get_options(), Some(both));
    assert_eq!(given.get_application_name(), Some("mine"));
}

#[test]
fn every_mode_of_libpq_is_known() {
    for mode in [
        "disable",
        "allow",
        "prefer",
        "require",
        "verify-ca",
        "verify-full",
    ] {
        parse(&format!("postgresql://u@h/d?sslmode={mode}"));
    }
    assert_eq!(
        fault("postgresql://u@h/d?sslmode=verify"),
        "there is no sslmode \"verify\"; use disable, allow, prefer, require, verify-ca or \
         verify-full"
    );
    let settings = parse("postgresql://u@h/d?sslrootcert=system").settings;
    assert_eq!(settings.tls.mode, SslMode::VerifyFull);
    fault("postgresql://u@h/d?sslrootcert=system&sslmode=require");
    fault("postgresql://u@h/d?sslnegotiation=direct&sslmode=prefer");
}

#[test]
fn what_is_not_understood_is_refused_and_what_changes_nothing_is_not() {
    assert!(
        fault("postgresql://u@h/d?sslmod=require").starts_with(
            "the connection option \"sslmod\" is not known; remove it; known are host, "
        )
    );
    fault("postgresql://u@h/d?sslcrl=/x");
    fault("postgresql://u@h/d?require_auth=scram-sha-256");
    fault("postgresql://u@h/d?gssencmode=require");
    fault("postgresql://u@h/d?connect_timeout=soon");
    fault("postgresql://u@h:70000/d");
    fault("postgresql://u@a,b/d?port=1,2,3");
    parse("postgresql://u@h/d?gssencmode=disable&sslsni=1&target_session_attrs=primary");
}

#[test]
fn the_variables_of_libpq_name_a_database() {
    let of = |variables: &[(&str, &str)]| {
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Connector::from_lookup(&move |name| {
            let found = variables.iter().find(|(variable, _)| variable == name);
            found.map(|(_, value)| value.clone())
        })
    };
    let named = of(&[
        ("PGHOST", "h"),
        ("PGUSER", "u"),
        ("PGPASSWORD", "p"),
        ("PGSSLMODE", "allow"),
    ]);
    let connector = named.expect("parses").expect("named");
    assert_eq!(connector.describe(), "u on h:5432 as u");
    assert_eq!(connector.settings.password.as_deref(), Some("p"));
    assert_eq!(connector.settings.tls.mode, SslMode::Allow);
    assert!(of(&[("PGPASSWORD", "p")]).expect("parses").is_none());
    assert!(of(&[("PGHOST", "")]).expect("parses").is_none());
    assert!(of(&[("PGSERVICE", "shop")]).is_err());
    let error = of(&[("PGPORT", "x")]).expect_err("no port").to_string();
    assert!(error.starts_with("the PG* variables: "), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_and_tried_again_until_the_limit() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.local_addr().expect("address").port()
    };
    let connector = parse(&format!("postgresql://u:hunter2@127.0.0.1:{port}/d"));
    let start = Instant::now();
    let error = connector
        .connect_within(Duration::from_millis(300))
        .await
        .expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(start.elapsed() < Duration::from_secs(5));
    let text = format!("{error:?}");
    assert!(
        text.contains(&format!("127.0.0.1:{port}: cannot connect to d: ")),
        "{text}"
    );
    assert!(
        text.contains("refused") && text.contains("; check that the server runs"),
        "{text}"
    );
    assert!(!text.contains("hunter2"));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_after_the_timeout() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let connector = parse(&format!(
        "postgresql://u@127.0.0.1:{port}/d?connect_timeout=1"
    ));
    let error = connector.connect().await.expect_err("silent");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(
        error.to_string().contains("no answer within 1 s"),
        "{error}"
    );
}

#[tokio::test]
async fn no_hint_about_hosts_and_firewalls_is_given_for_a_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let there = directory.path().join(".s.PGSQL.5432");
    let listener = std::os::unix::net::UnixListener::bind(there).expect("bind");
    let host = directory.path().display();
    let connector = parse(&format!("host={host} user=u dbname=d connect_timeout=1"));
    let silent = connector.connect().await.expect_err("silent");
    let late = connector.connect_within(Duration::from_millis(100)).await;
    drop(listener);
    for error in [silent, late.expect_err("silent")] {
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("its socket in this directory"), "{error}");
        assert!(!hint.contains("firewall"), "{error}");
    }
}

#[test]
fn a_pool_of_nobody_is_refused() {
    assert!(parse("postgresql://u@h/d").pool(0).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(postgresql://|host=)?[a-z0-9:@/?=&%,\\[\\]' \\\\]{0,40}") {
        if let Ok(connector) = Connector::parse(&text) {
            let _ = connector.describe();
        }
    }

    #[test]
    fn no_message_shows_the_password(tail in "[a-z0-9:@/?=&%,]{0,30}") {
        for text in [format!("postgresql://app:QZX{tail}@db/shop"), format!("password=QZX{tail} user=u port={tail}")] {
            let shown = match Connector::parse(&text) {
                Ok(connector) => format!("{connector:?}"),
                Err(error) => format!("{error:?}"),
            };
            prop_assert!(!shown.contains("QZX"), "{}", shown);
        }
    }
}
