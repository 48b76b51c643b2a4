use super::*;

fn me() -> Account {
    Account {
        name: "me".into(),
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        is_substitute: false,
    }
}

#[test]
fn two_projects_of_the_same_name_have_two_clusters() {
    let both = tempfile::tempdir().unwrap();
    let home = Path::new("/home");
    let roots = ["a", "b"].map(|parent| {
        let project = both.path().join(parent).join("shop");
        fs::create_dir_all(&project).unwrap();
        project_root(home, &project).unwrap()
    });
    assert_ne!(roots[0], roots[1]);
    for root in roots {
        let name = root.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("shop-") && name.len() == 13, "{name}");
    }
}

#[test]
fn a_project_name_cannot_break_the_files_it_is_written_in() {
    assert_eq!(plain(OsStr::new("my shop\n2")), "my_shop_2");
}

#[test]
fn the_socket_is_in_the_runtime_directory_or_else_under_tmp() {
    let runtime = tempfile::tempdir_in("/tmp").unwrap();
    let data = Path::new("/data/pg15");
    let own = socket_dir(data, &me(), Some(runtime.path())).unwrap();
    assert!(own.starts_with(runtime.path()), "{own:?}");
    let fallback = socket_dir(data, &me(), None).unwrap();
    assert!(fallback.starts_with("/tmp"), "{fallback:?}");
    let stand_in = Account {
        is_substitute: true,
        ..me()
    };
    let of_root = socket_dir(data, &stand_in, Some(runtime.path())).unwrap();
    assert!(of_root.starts_with("/tmp"), "{of_root:?}");
}

#[test]
fn a_socket_path_over_the_limit_is_refused_with_its_length() {
    let dir = format!("/tmp/{}", "x".repeat(SOCKET_PATH_LIMIT));
    let error = check_socket_path(Path::new(&dir)).unwrap_err();
    let said = error.to_string();
    let length = dir.len() + 1 + SOCKET_NAME.len();
    assert_eq!(error.kind(), ErrorKind::Setup);
    for part in [
        format!("{length} bytes is too long"),
        format!("the limit is {SOCKET_PATH_LIMIT}"),
        "set XDG_RUNTIME_DIR".to_owned(),
        dir,
    ] {
        assert!(said.contains(&part), "{part} is missing in: {said}");
    }
}

#[test]
fn a_socket_path_at_the_limit_is_taken() {
    let fill = SOCKET_PATH_LIMIT - "/tmp/".len() - 1 - SOCKET_NAME.len();
    let dir = format!("/tmp/{}", "x".repeat(fill));
    assert!(check_socket_path(Path::new(&dir)).is_ok());
    assert!(check_socket_path(Path::new(&format!("{dir}x"))).is_err());
}

#[test]
fn a_read_only_data_directory_is_named_before_the_server_tries() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("pg15");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).unwrap();
    let error = check_data_dir(&data, &me()).unwrap_err();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let said = error.to_string();
    assert!(
        said.contains("pg15: the directory is read-only for me; "),
        "{said}"
    );
}

#[test]
fn a_data_directory_of_somebody_else_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let other = Account {
        uid: me().uid + 1,
        ..me()
    };
    let error = check_data_dir(root.path(), &other).unwrap_err();
    assert!(error.to_string().contains("belongs to user id"), "{error}");
}

#[test]
fn an_empty_data_directory_makes_room_and_one_with_other_files_does_not() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("pg15");
    fs::create_dir(&data).unwrap();
    check_data_dir(&data, &me()).unwrap();
    assert!(!data.exists());
    fs::create_dir(&data).unwrap();
    fs::write(data.join("thesis.txt"), "").unwrap();
    let error = check_data_dir(&data, &me()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("not a PostgreSQL data directory")
    );
}

#[test]
fn a_file_where_a_directory_must_be_made_is_a_sentence() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = make_private(&file.join("shop"), &me()).unwrap_err();
    assert!(
        error.to_string().contains("cannot make the directory"),
        "{error}"
    );
    let error = make_private(&file, &me()).unwrap_err();
    assert!(
        error.to_string().contains("this is not a directory"),
        "{error}"
    );
}

#[test]
fn a_private_directory_is_closed_to_everybody_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("sockets");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    make_private(&dir, &me()).unwrap();
    assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_lock_is_not_opened_through_a_link() {
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.path().join("lock")).unwrap();
    assert!(open_lock(root.path()).is_err());
}

#[test]
fn roots_clusters_are_where_another_account_can_reach_them() {
    let stand_in = Account {
        is_substitute: true,
        ..me()
    };
    assert_eq!(home_of(&stand_in).unwrap(), Path::new("/var/lib/highwater"));
    assert!(home_of(&me()).unwrap().ends_with("highwater"));
}

#[test]
fn a_full_disk_is_a_sentence_with_a_way_out() {
    let full = io::Error::from(io::ErrorKind::StorageFull);
    let error = io_error("cannot make the directory", Path::new("/data"), full);
    assert_eq!(error.kind(), ErrorKind::Io);
    let said = error.to_string();
    assert!(
        said.starts_with("/data: cannot make the directory: no storage space; free some space"),
        "{said}"
    );
}
