//! `~/.pgpass`: `host:port:database:user:password`, `*` for any, a backslash before `:` and `\`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::settings::Endpoint;

/// What a line must match.
pub(crate) struct Wanted<'a> {
    host: &'a str,
    port: String,
    database: &'a str,
    user: &'a str,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(endpoint: &'a Endpoint, database: &'a str, user: &'a str) -> Wanted<'a> {
        // libpq's rule: a socket in its default place goes by the name localhost.
        let is_default = ["/var/run/postgresql", "/tmp"].contains(&endpoint.host.as_str());
        Wanted {
            host: if is_default {
                "localhost"
            } else {
                &endpoint.host
            },
            port: endpoint.port.to_string(),
            database,
            user,
        }
    }
}

/// The password of the first line that matches. A file that others may read is not used.
pub(crate) fn find(file: &Path, wanted: &Wanted<'_>) -> Option<String> {
    let metadata = std::fs::metadata(file)
        .ok()
        .filter(std::fs::Metadata::is_file)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "password file ignored: others may read it; chmod 0600 it");
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| password_of(line, wanted))
}

fn password_of(line: &str, wanted: &Wanted<'_>) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let fields = fields(line);
    let [host, port, database, user, password] = fields.as_slice() else {
        return None;
    };
    let matches = |field: &Field, value: &str| field.is_any || field.text == value;
    let all = matches(host, wanted.host)
        && matches(port, &wanted.port)
        && matches(database, wanted.database)
        && matches(user, wanted.user);
    all.then(|| password.text.clone())
}

struct Field {
    text: String,
    /// A bare `*`; an escaped one is a name.
    is_any: bool,
}

fn fields(line: &str) -> Vec<Field> {
    let mut fields = vec![String::new()];
    let mut bare = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                bare.push(String::new());
            }
            c => {
                let kept = if c == '\\' { chars.next() } else { Some(c) };
                if let (Some(field), Some(raw)) = (fields.last_mut(), bare.last_mut()) {
                    field.extend(kept);
                    raw.push(c);
                }
            }
        }
    }
    let pairs = fields.into_iter().zip(bare);
    pairs
        .map(|(text, raw)| Field {
            is_any: raw == "*",
            text,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(line: &str) -> Option<String> {
        let endpoint = Endpoint {
            host: "db".to_owned(),
            address: None,
            port: 5432,
        };
        password_of(line, &Wanted::new(&endpoint, "shop", "app"))
    }

    #[test]
    fn a_line_matches_by_value_or_star_and_may_escape() {
        assert_eq!(
            find_in("db:5432:shop:app:secret").as_deref(),
            Some("secret")
        );
        assert_eq!(find_in(r"*:*:*:app:a\:b\\c").as_deref(), Some(r"a:b\c"));
        assert_eq!(find_in("*:*:*:*:with:colon").as_deref(), Some("with:colon"));
        assert_eq!(find_in("other:5432:shop:app:secret"), None);
        assert_eq!(find_in(r"\*:5432:shop:app:secret"), None);
        assert_eq!(find_in("# *:*:*:*:secret"), None);
        assert_eq!(find_in("db:5432:shop"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("pass");
        std::fs::write(&file, "*:*:*:*:secret\n").expect("write");
        let endpoint = Endpoint {
            host: "db".to_owned(),
            address: None,
            port: 5432,
        };
        let wanted = Wanted::new(&endpoint, "shop", "app");
        let chmod = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&file, permissions).expect("chmod");
        };
        chmod(0o644);
        assert_eq!(find(&file, &wanted), None);
        chmod(0o600);
        assert_eq!(find(&file, &wanted).as_deref(), Some("secret"));
    }
}
