//! Connecting: what each `sslmode` verifies, and what is said when it fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a panic is the report"
)]

mod process;
mod server;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use highwater_connect::{Connector, Defaults, ErrorKind, Result, pool_error};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use server::Server;

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = params(&[], name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

/// Names and addresses by which the test server is reached.
const HERE: [&str; 2] = ["localhost", "127.0.0.1"];

/// A role's connector to the test server, with a home directory that holds what the test put there.
fn connector_of(server: &Server, role: &str, host: &str, rest: &str, home: &Path) -> Connector {
    let port = server.port;
    let lookup = |name: &str| (name == "HOME").then(|| home.display().to_string());
    let url = format!("postgresql://{role}@{host}:{port}/postgres?{rest}");
    Connector::parse_with(&url, &lookup).unwrap()
}

/// Without a home: no file of the user who runs the test takes part.
fn connector(server: &Server, host: &str, rest: &str) -> Connector {
    connector_of(server, "postgres", host, rest, Path::new("/nonexistent"))
}

/// Whether the session that this gives is encrypted.
async fn is_encrypted(connector: &Connector) -> Result<bool> {
    let client = connector.connect().await?;
    let row = client
        .query_one(
            "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
            &[],
        )
        .await
        .unwrap();
    Ok(row.get(0))
}

async fn refusal(connector: &Connector) -> String {
    let error = connector.connect().await.expect_err("refused");
    let refused = [ErrorKind::Refused, ErrorKind::Tls];
    assert!(refused.contains(&error.kind()), "{error:?}");
    error.to_string()
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let file = directory.join(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn every_mode_verifies_what_libpq_says() {
    let files = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let root = write(files.path(), "root.crt", &ours.certificate);
    let other = write(
        files.path(),
        "other.crt",
        &Authority::new("other").certificate,
    );
    let server = Server::with_tls(&ours.sign(params(&HERE, "here")), None);

    for (rest, encrypted) in [
        (String::new(), true),
        ("sslmode=disable".to_owned(), false),
        ("sslmode=allow".to_owned(), false),
        ("sslmode=prefer".to_owned(), true),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=prefer&sslrootcert={other}"), true),
        (format!("sslmode=require&sslrootcert={root}"), true),
        (format!("sslmode=verify-ca&sslrootcert={root}"), true),
        (format!("sslmode=verify-full&sslrootcert={root}"), true),
        (
            format!("sslmode=verify-full&sslrootcert={root}&ssl_min_protocol_version=TLSv1.3"),
            true,
        ),
    ] {
        for host in HERE {
            let got = is_encrypted(&connector(&server, host, &rest)).await;
            assert_eq!(
                got.unwrap_or_else(|e| panic!("{rest}: {e}")),
                encrypted,
                "{rest}"
            );
        }
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        let rest = format!("sslmode={mode}&sslrootcert={other}");
        let error = refusal(&connector(&server, "localhost", &rest)).await;
        assert_eq!(
            error,
            format!(
                "localhost:{}: cannot connect to postgres: the server's certificate comes from an \
                 issuer that is not trusted; name the issuer's certificate with sslrootcert=FILE",
                server.port
            )
        );
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_passes_verify_ca_only() {
    let files = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let root = write(files.path(), "root.crt", &ours.certificate);
    let server = Server::with_tls(&ours.sign(params(&["db.example"], "localhost")), None);

    let verify_ca = format!("sslmode=verify-ca&sslrootcert={root}");
    assert!(
        is_encrypted(&connector(&server, "localhost", &verify_ca))
            .await
            .unwrap()
    );

    let verify_full = format!("sslmode=verify-full&sslrootcert={root}");
    let error = refusal(&connector(&server, "localhost", &verify_full)).await;
    assert!(error.contains("does not name this host"), "{error}");
    assert!(error.contains("db.example"), "{error}");

    // The name is what the certificate is held against, wherever the address leads.
    let by_address = format!("{verify_full}&hostaddr=127.0.0.1");
    assert!(
        is_encrypted(&connector(&server, "db.example", &by_address))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn an_expired_certificate_is_called_expired() {
    let files = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let root = write(files.path(), "root.crt", &ours.certificate);
    let mut expired = params(&HERE, "here");
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let server = Server::with_tls(&ours.sign(expired), None);

    let rest = format!("sslmode=verify-ca&sslrootcert={root}");
    let error = refusal(&connector(&server, "localhost", &rest)).await;
    assert!(
        error.contains("the server's certificate has expired; renew it"),
        "{error}"
    );
    assert!(
        is_encrypted(&connector(&server, "localhost", "sslmode=require"))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_self_signed_authority_serves_as_its_own_root() {
    let files = tempfile::tempdir().unwrap();
    let mut both = params(&HERE, "localhost");
    both.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pair = Pair {
        certificate: both.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    };
    let root = write(files.path(), "root.crt", &pair.certificate);
    let other = write(
        files.path(),
        "other.crt",
        &Authority::new("localhost").certificate,
    );
    let server = Server::with_tls(&pair, None);

    let rest = format!("sslmode=verify-full&sslrootcert={root}");
    assert!(
        is_encrypted(&connector(&server, "localhost", &rest))
            .await
            .unwrap()
    );
    let rest = format!("sslmode=verify-full&sslrootcert={other}");
    refusal(&connector(&server, "localhost", &rest)).await;
}

#[tokio::test]
async fn a_client_certificate_is_sent_where_the_server_asks_for_one() {
    let files = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let client = ours.sign(params(&[], "postgres"));
    let certificate = write(files.path(), "client.crt", &client.certificate);
    let key = write(files.path(), "client.key", &client.key);
    let other_key = write(
        files.path(),
        "other.key",
        &KeyPair::generate().unwrap().serialize_pem(),
    );
    let pair = ours.sign(params(&HERE, "here"));
    let server = Server::with_tls(&pair, Some(&ours.certificate));

    let rest = format!("sslmode=require&sslcert={certificate}&sslkey={key}");
    assert!(
        is_encrypted(&connector(&server, "localhost", &rest))
            .await
            .unwrap()
    );

    let error = refusal(&connector(&server, "localhost", "sslmode=require")).await;
    assert!(error.contains("client certificate"), "{error}");

    let rest = format!("sslmode=require&sslcert={certificate}&sslkey={other_key}");
    let error = connector(&server, "localhost", &rest)
        .connect()
        .await
        .expect_err("no pair");
    assert_eq!(error.kind(), ErrorKind::Setting);
    assert!(
        error
            .to_string()
            .starts_with(&format!("{other_key}: the key does not match"))
    );
}

#[tokio::test]
async fn a_server_without_tls_is_used_only_where_the_mode_allows() {
    let server = Server::plain();

    for mode in ["disable", "allow", "prefer"] {
        let rest = format!("sslmode={mode}");
        assert!(
            !is_encrypted(&connector(&server, "localhost", &rest))
                .await
                .unwrap()
        );
    }
    let error = refusal(&connector(&server, "localhost", "sslmode=require")).await;
    assert_eq!(
        error,
        format!(
            "localhost:{}: cannot connect to postgres: server does not support TLS; set ssl = on \
             in the server, or connect with sslmode=prefer or disable",
            server.port
        )
    );
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named() {
    let files = tempfile::tempdir().unwrap();
    let server = Server::plain();
    let empty = write(files.path(), "empty.crt", "");
    let missing = files.path().join("missing.crt").display().to_string();

    for file in [empty, missing] {
        let rest = format!("sslmode=verify-full&sslrootcert={file}");
        let connector = connector(&server, "localhost", &rest);
        let error = connector.connect().await.expect_err("no root");
        assert_eq!(error.kind(), ErrorKind::Setting);
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("{file}: cannot read sslrootcert: ")),
            "{text}"
        );
        assert_eq!(
            connector.pool(1).expect_err("no root").kind(),
            ErrorKind::Setting
        );
    }
    let error = connector(&server, "localhost", "sslmode=verify-ca")
        .connect()
        .await;
    let error = error.expect_err("no root").to_string();
    assert!(
        error.starts_with("sslmode=verify-ca has no root certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn the_server_s_rules_choose_between_plain_and_encrypted() {
    let ours = Authority::new("ours");
    let server = Server::with_tls(&ours.sign(params(&HERE, "here")), None);
    let admin = server.socket("").connect().await.unwrap();
    admin
        .batch_execute(
            "create role only_tls login; create role only_plain login;
             create role secret login password 'hunter2'",
        )
        .await
        .unwrap();
    let nowhere = Path::new("/nonexistent");
    let as_role = |role: &str, rest: &str| connector_of(&server, role, "localhost", rest, nowhere);

    assert!(
        is_encrypted(&as_role("only_tls", "sslmode=allow"))
            .await
            .unwrap()
    );
    assert!(
        is_encrypted(&as_role("only_tls", "sslmode=prefer"))
            .await
            .unwrap()
    );
    assert!(
        !is_encrypted(&as_role("only_plain", "sslmode=prefer"))
            .await
            .unwrap()
    );
    assert!(
        !is_encrypted(&as_role("only_plain", "sslmode=allow"))
            .await
            .unwrap()
    );
    let error = refusal(&as_role("only_plain", "sslmode=require")).await;
    assert!(
        error.contains("(SQLSTATE 28000)") && error.contains("pg_hba.conf"),
        "{error}"
    );

    // SCRAM bound to the channel: the password works on this very TLS connection only.
    let bound = as_role("secret:hunter2", "sslmode=require&channel_binding=require");
    assert!(is_encrypted(&bound).await.unwrap());
    let error = refusal(&as_role("secret:hunter3", "")).await;
    assert!(error.contains("(SQLSTATE 28P01)"), "{error}");
    assert!(!error.contains("hunter"), "{error}");
    let error = refusal(&as_role("secret", "")).await;
    assert!(
        error.contains("password missing; give the password"),
        "{error}"
    );
    let error = refusal(&as_role("nobody", "")).await;
    assert!(error.contains("role \"nobody\" does not exist"), "{error}");
    let error = refusal(&server.socket("").with_database("none")).await;
    assert!(
        error.contains("database \"none\" does not exist (SQLSTATE 3D000)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_session_starts_with_the_settings_it_needs() {
    let server = Server::plain();
    let connector = server.socket("options=-c%20TimeZone%3DAsia/Tokyo%20-c%20work_mem%3D5MB");
    let connector = connector.with_application_name("a report");
    let connector = connector.with_defaults(Defaults {
        application_name: "reports",
        options: "-c row_security=off -c TimeZone=UTC",
    });
    let client = connector.connect().await.unwrap();
    let show = async |name: &str| -> String {
        let row = client
            .query_one(&format!("show {name}"), &[])
            .await
            .unwrap();
        row.get(0)
    };

    assert_eq!(show("row_security").await, "off");
    assert_eq!(show("TimeZone").await, "Asia/Tokyo");
    assert_eq!(show("work_mem").await, "5MB");
    assert_eq!(show("application_name").await, "a report");
}

#[tokio::test]
async fn cancel_listen_and_pool_work_over_tls() {
    let ours = Authority::new("ours");
    let server = Server::with_tls(&ours.sign(params(&HERE, "here")), None);
    let connector = connector(&server, "localhost", "sslmode=require");

    let client = connector.connect().await.unwrap();
    let token = client.cancel_token();
    let sleeping = tokio::spawn(async move { client.batch_execute("select pg_sleep(600)").await });
    let pool = connector.pool(2).unwrap();
    let watcher = connector.client_of(&pool).await.unwrap();
    server::until(async || {
        let sql = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)' \
                   and state = 'active' and pid <> pg_backend_pid()";
        watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    connector.cancel(token).await.unwrap();
    let error = sleeping.await.unwrap().expect_err("cancelled");
    assert_eq!(error.code().unwrap().code(), "57014");

    let mut notifications = connector.listen("a \"channel\"").await.unwrap();
    watcher
        .batch_execute("notify \"a \"\"channel\"\"\", '42'; notify \"a \"\"channel\"\"\"")
        .await
        .unwrap();
    assert_eq!(notifications.recv().await.unwrap().as_deref(), Some("42"));
    assert_eq!(notifications.recv().await.unwrap(), None);

    watcher
        .batch_execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen %'",
        )
        .await
        .unwrap();
    let error = notifications.recv().await.expect_err("lost");
    assert_eq!(error.kind(), ErrorKind::Unreachable);

    drop(watcher);
    drop(server);
    server::until(async || match pool.get().await {
        // The task of its connection has not seen the end yet.
        Ok(_) => false,
        Err(error) => {
            let error = pool_error(error);
            assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
            true
        }
    })
    .await;
    let error = connector
        .connect_within(Duration::from_millis(200))
        .await
        .expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn of_several_hosts_the_first_that_answers_and_fits_is_taken() {
    let server = Server::plain();
    let url = format!(
        "postgresql://postgres@127.0.0.1:1,localhost:{}/postgres?target_session_attrs=read-write",
        server.port
    );
    Connector::parse(&url).unwrap().connect().await.unwrap();

    let url = url.replace("read-write", "standby");
    let error = Connector::parse(&url)
        .unwrap()
        .connect()
        .await
        .expect_err("no standby");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(
        error.to_string().contains("database is not read only"),
        "{error}"
    );
}

#[tokio::test]
async fn the_files_of_libpq_in_the_home_directory_are_used() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".postgresql");
    std::fs::create_dir(&directory).unwrap();
    let ours = Authority::new("ours");
    let server = Server::with_tls(&ours.sign(params(&HERE, "here")), Some(&ours.certificate));
    let as_role =
        |role: &str, rest: &str| connector_of(&server, role, "localhost", rest, home.path());

    let client = ours.sign(params(&[], "postgres"));
    write(&directory, "postgresql.crt", &client.certificate);
    write(&directory, "postgresql.key", &client.key);
    write(&directory, "root.crt", &ours.certificate);
    for mode in ["require", "verify-ca", "verify-full"] {
        let rest = format!("sslmode={mode}");
        assert!(
            is_encrypted(&as_role("postgres", &rest)).await.unwrap(),
            "{mode}"
        );
    }

    let admin = server.socket("").connect().await.unwrap();
    admin
        .batch_execute("create role secret login password 'from:file'")
        .await
        .unwrap();
    let file = home.path().join(".pgpass");
    let port = server.port;
    std::fs::write(&file, format!("localhost:{port}:*:secret:from\\:file\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        is_encrypted(&as_role("secret", "sslmode=require"))
            .await
            .unwrap()
    );

    // libpq's rule: with a root file there, require verifies.
    write(&directory, "root.crt", &Authority::new("other").certificate);
    refusal(&as_role("postgres", "sslmode=require")).await;
}

#[tokio::test]
async fn a_server_that_starts_is_waited_for() {
    let server = Server::starting();
    let connector = connector(&server, "localhost", "");
    connector
        .connect_within(Duration::from_secs(60))
        .await
        .unwrap();
}
