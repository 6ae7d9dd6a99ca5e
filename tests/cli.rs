//! The command as people and scripts meet it: help, exit codes, keys, files, and messages that say what to do.

use assert_cmd::Command;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

fn baton<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::cargo_bin("baton").unwrap();
    command.env_remove("RUST_LOG").args(arguments).output().unwrap()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What every failure owes a person: the exit code, the cause, and no trace of our insides.
#[track_caller]
fn assert_fails(output: &Output, expected_code: i32, cause: &str) {
    let text = stderr(output);
    assert_eq!(code(output), expected_code, "{text}");
    assert!(text.contains(cause), "`{cause}` is not in: {text}");
    for inside in ["panicked", "backtrace", "Os {", "Error {", "src/"] {
        assert!(!text.contains(inside), "{text}");
    }
}

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

/// A cluster of node a, with this public key, on the loopback address.
fn cluster_file(directory: &Path, public_key: &str) -> PathBuf {
    let path = directory.join("cluster.yaml");
    let text = format!(
        "cluster: test\n\
         overlay: {{ port: 7499, aliases: 198.18.0.0/24 }}\n\
         nodes:\n  a: {{ address: 127.0.0.1, public_key: \"{public_key}\" }}\n\
         services:\n  web:\n    frontends: {{ a: \"127.0.0.1:8080\" }}\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A key file and its public key.
fn key_file(directory: &Path, name: &str) -> (PathBuf, String) {
    let path = directory.join(name);
    let output = baton(["keygen", "--out", path.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    (path, stdout(&output).trim().to_owned())
}

#[test]
fn help_teaches_at_every_level() {
    let top = stdout(&baton(["--help"]));
    let commands = [
        "run", "check", "doctor", "cleanup", "explain", "keygen", "status", "peers", "flows", "stats", "reload", "drain",
        "undrain", "stop",
    ];
    for command in commands {
        assert!(top.contains(&format!("\n  {command} ")), "{command} is not listed:\n{top}");
        let output = baton([command, "--help"]);
        assert_eq!(code(&output), 0);
        let help = stdout(&output);
        assert!(help.contains("Example"), "{help}");
        assert!(help.contains("Exit codes:"), "{help}");
        assert!(help.contains(&format!("baton {command}")), "{help}");
        assert!(!help.lines().next().unwrap_or_default().is_empty(), "{help}");
    }
    assert!(!top.contains("\n  top "), "top does not exist yet:\n{top}");
}

#[test]
fn the_version_is_told() {
    let output = baton(["--version"]);
    assert_eq!(stdout(&output), concat!("baton ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_wrong_command_line_is_code_2_and_says_what_is_missing() {
    for (line, cause) in [
        ("", "Usage"),
        ("dance", "dance"),
        ("run", "--node"),
        ("run --node a", "CLUSTER.yaml"),
        ("check", "CLUSTER.yaml"),
        ("flows --limit many", "many"),
        ("explain examples/two-nodes.yaml --node a --service web", "--http"),
        ("explain shop.yaml --node a --service web --redis GET --http GET", "--http"),
        ("explain shop.yaml --node a --service web --body x", "--http"),
        ("explain shop.yaml --node a --service web --raw \\q", "backslash"),
        ("explain shop.yaml --node a --http GET", "GET"),
        ("explain examples/layer-4.yaml --node main --service mail --raw x", "leave out --http"),
        ("explain examples/layer-4.yaml --node main --service mail --sni x", "--client ADDRESS"),
        ("explain shop.yaml --node a --service web --request f --header x:y", "--header"),
        ("explain shop.yaml --service web --request f", "--node"),
        ("explain shop.yaml --node a --service web --alpn h2", "--sni"),
        ("explain shop.yaml --node a --service web --sni x --http GET", "--http"),
        ("explain shop.yaml --node a --service web --sni a,b", "no client can ask for this name"),
        ("stop --timeout soon", "30s"),
        ("keygen --json", "--json"),
    ] {
        assert_fails(&baton(words(line)), 2, cause);
    }
}

#[test]
fn a_key_pair_goes_to_a_private_file_and_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let (path, public) = key_file(directory.path(), "keys/a.key");
    assert_eq!(public.len(), 44, "base64 of 32 octets: {public}");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    let private = std::fs::read_to_string(&path).unwrap();
    assert_eq!(private.lines().count(), 1);
    assert!(!private.contains(&public));
    let read = baton::control::key::PrivateKey::read(&path).unwrap();
    assert_eq!(read.to_text().trim(), private.trim());

    let again = baton(["keygen", "--out", path.to_str().unwrap()]);
    assert_fails(&again, 3, "not overwritten");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), private, "the old key is untouched");
}

#[test]
fn without_a_file_the_private_key_is_all_of_standard_output() {
    let output = baton(["keygen"]);
    assert_eq!(code(&output), 0);
    assert_eq!(stdout(&output).lines().count(), 1);
    let errors = stderr(&output);
    let public = errors.trim().strip_prefix("public key: ").unwrap();
    assert_eq!(public.len(), 44);
    assert_ne!(public, stdout(&output).trim());
    assert_ne!(baton(["keygen"]).stdout, output.stdout, "keys differ");
}

#[test]
fn a_key_that_cannot_be_written_is_code_3() {
    assert_fails(&baton(["keygen", "--out", "/proc/nowhere/a.key"]), 3, "/proc/nowhere/a.key");
}

#[test]
fn every_example_passes_check() {
    assert!(!examples().is_empty());
    for path in examples() {
        let output = baton(["check", path.to_str().unwrap()]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stdout(&output).contains("ok"), "{}", stdout(&output));
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn check_shows_the_place_the_line_and_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.yaml");
    let text = std::fs::read_to_string(&examples()[0]).unwrap();
    std::fs::write(&path, format!("{text}\ncolour: red\n")).unwrap();
    let output = baton(["check", path.to_str().unwrap()]);
    assert_fails(&output, 1, "colour");
    let place = format!("{}:{}:1: ", path.display(), text.lines().count() + 2);
    assert!(stderr(&output).contains(&place), "{place} is not in: {}", stderr(&output));
    assert!(stderr(&output).contains("| colour: red"), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

#[test]
fn check_of_a_node_looks_for_its_listeners_and_only_warns() {
    let directory = tempfile::tempdir().unwrap();
    let (_, public) = key_file(directory.path(), "a.key");
    // The same port on the wildcard and on one address only, each in its turn.
    let wildcard = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = wildcard.local_addr().unwrap().port();
    let text = std::fs::read_to_string(cluster_file(directory.path(), &public)).unwrap();
    let path = directory.path().join("ports.yaml");
    std::fs::write(&path, text.replace("8080", &port.to_string())).unwrap();
    let check = |node: &str| baton(["check", "--node", node, path.to_str().unwrap()]);
    let said_of_the_file = stderr(&baton(["check", path.to_str().unwrap()]));

    let output = check("a");
    assert_eq!((code(&output), stderr(&output)), (0, said_of_the_file.clone()));
    drop(wildcard);
    // A process that another test is starting may hold the listener a moment longer.
    let mut output = check("a");
    for _ in 0..100 {
        if stderr(&output).contains("nothing listens") {
            break;
        }
        output = check("a");
    }
    assert_eq!(code(&output), 0);
    for part in [
        format!("warning: node a: service=web frontend=127.0.0.1:{port}: nothing listens on port {port}, so clients "),
        format!("warning: node a: service=web application_port={port}: nothing listens on port {port}, so connections handed "),
    ] {
        assert!(stderr(&output).contains(&part), "`{part}` is not in: {}", stderr(&output));
    }
    let _only_here = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let said = stderr(&check("a"));
    assert_eq!(said.matches("warning: node a").count(), 1, "{said}");
    assert!(said.contains(&format!("the application listens only on 127.0.0.1:{port}, so connections handed ")), "{said}");
    assert!(said.contains(&format!("  = let it listen on 0.0.0.0:{port} (nginx: `listen {port};`)")), "{said}");
    assert_fails(&check("z"), 1, "there is no node `z`");
}

#[test]
fn check_of_a_node_that_serves_on_two_ports_warns_only_of_one_where_nothing_listens() {
    let directory = tempfile::tempdir().unwrap();
    let (_, public) = key_file(directory.path(), "a.key");
    let listen = || std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let (frontend, application) = (listen(), listen());
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port().to_string();
    let (frontend_port, application_port) = (port(&frontend), port(&application));
    let path = cluster_file(directory.path(), &public);
    let text = std::fs::read_to_string(&path).unwrap().replace("8080", &frontend_port);
    std::fs::write(&path, format!("{text}    servers: {{ a: {{ port: {application_port} }} }}\n")).unwrap();

    let said = stderr(&baton(["check", path.to_str().unwrap()]));
    let warning = format!("that stay local go to port {frontend_port}, handed-off ones to port {application_port}");
    assert_eq!(said.matches(&warning).count(), 1, "{said}");
    let look = || stderr(&baton(["check", "--node", "a", path.to_str().unwrap()]));
    let said = look();
    assert!(!said.contains("stay local") && !said.contains("node a: "), "{said}");
    drop(application);
    // A process that another test is starting may hold it a moment longer.
    let said = (0..50).map(|_| look()).find(|said| said.contains("node a: ")).unwrap();
    assert!(said.contains(&format!("nothing listens on port {application_port}, so connections handed ")), "{said}");
    assert!(!said.contains(&warning), "{said}");
}

#[test]
fn check_of_a_node_that_this_host_is_not_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (_, public) = key_file(directory.path(), "a.key");
    let path = cluster_file(directory.path(), &public);
    // A documentation address (RFC 5737).
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("127.0.0.1", "192.0.2.1")).unwrap();
    let output = baton(["check", "--node", "a", path.to_str().unwrap()]);
    assert_eq!(code(&output), 0);
    let said = stderr(&output);
    assert!(said.contains("warning: node a: its address 192.0.2.1 is not one of this host"), "{said}");
    assert!(!said.contains("listens on port"), "{said}");
}

#[test]
fn an_absent_cluster_file_is_code_1() {
    for line in ["check /nowhere/shop.yaml", "run --node a /nowhere/shop.yaml"] {
        assert_fails(&baton(words(line)), 1, "/nowhere/shop.yaml");
    }
}

#[test]
fn questions_without_a_daemon_are_code_4() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let socket = socket.to_str().unwrap();
    for command in ["status", "peers", "flows", "stats", "reload", "drain", "undrain", "stop"] {
        assert_fails(&baton([command, "--socket", socket]), 4, socket);
    }
    drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
    assert_fails(&baton(["status", "--socket", socket]), 4, "left over");
}

#[test]
fn a_daemon_that_ends_in_mid_answer_is_code_5() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    #[allow(clippy::disallowed_methods)]
    let daemon = std::thread::spawn(move || drop(listener.accept()));
    assert_fails(&baton(["status", "--socket", socket.to_str().unwrap()]), 5, "a.sock");
    daemon.join().unwrap();
}

#[test]
fn run_refuses_a_node_that_is_not_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let (_, public) = key_file(directory.path(), "a.key");
    let file = cluster_file(directory.path(), &public);
    let output = baton(["run", "--node", "z", file.to_str().unwrap()]);
    assert_fails(&output, 1, "there is no node `z`");
}

#[test]
fn run_of_a_wrong_file_tells_what_is_wrong_and_no_warnings() {
    let directory = tempfile::tempdir().unwrap();
    let (_, public) = key_file(directory.path(), "a.key");
    let file = cluster_file(directory.path(), &public);
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + "foo: 1\n").unwrap();
    let file = file.to_str().unwrap();
    let output = baton(["check", file]);
    assert_fails(&output, 1, "has no field `foo`");
    assert!(stderr(&output).contains("warning: 127.0.0.1 is a loopback address"), "{}", stderr(&output));
    let output = baton(["run", "--node", "a", file]);
    assert_fails(&output, 1, "has no field `foo`");
    assert!(!stderr(&output).contains("warning"), "{}", stderr(&output));
}

#[test]
fn run_refuses_a_key_that_is_absent_open_to_others_or_of_another_node() {
    let directory = tempfile::tempdir().unwrap();
    let (path, public) = key_file(directory.path(), "a.key");
    let (other, other_public) = key_file(directory.path(), "b.key");
    let file = cluster_file(directory.path(), &public);
    let run = |key: &Path| baton(["run", "--node", "a", "--key", key.to_str().unwrap(), file.to_str().unwrap()]);
    assert_fails(&run(&directory.path().join("c.key")), 3, "c.key");
    let output = run(&other);
    assert_fails(&output, 1, "not the key of node a");
    assert!(stderr(&output).contains(&other_public), "it tells which key it found");
    let text = std::fs::read_to_string(&file).unwrap();
    let with_b = format!("  b: {{ address: 127.0.0.2, public_key: \"{other_public}\" }}\nservices:");
    std::fs::write(&file, text.replace("services:", &with_b)).unwrap();
    assert_fails(&run(&other), 1, "not the key of node a but that of node b");
    let output = baton(["doctor", "--node", "a", "--key", other.to_str().unwrap(), file.to_str().unwrap()]);
    assert!(stdout(&output).contains("not the key of node a but that of node b"), "{}", stdout(&output));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_fails(&run(&path), 3, "a.key");
}

#[test]
fn run_without_privilege_is_code_3_and_touches_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (key, public) = key_file(directory.path(), "a.key");
    let file = cluster_file(directory.path(), &public);
    let socket = directory.path().join("a.sock");
    // As root the privilege has to be given away first; setpriv(1) belongs to the essential packages.
    let program = assert_cmd::cargo::cargo_bin("baton");
    let output = Command::new("setpriv")
        .args(["--inh-caps=-net_admin", "--bounding-set=-net_admin"])
        .arg(program)
        .args(["run", "--node", "a"])
        .arg("--key")
        .arg(key)
        .arg("--socket")
        .arg(&socket)
        .arg(file)
        .output()
        .unwrap();
    assert_fails(&output, 3, "CAP_NET_ADMIN");
    assert!(!socket.exists());
}

/// `baton explain` of a file whose node a has rules for images (node b) and for a client's network.
fn explain(directory: &Path, arguments: &[&str]) -> Output {
    let path = directory.join("explained.yaml");
    let text = "\
cluster: shop
overlay: { port: 7400, aliases: 198.18.0.0/16 }
nodes:
  a: { address: 10.77.0.1, public_key: bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U= }
  b: { address: 10.77.0.2, public_key: jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8= }
services:
  web:
    frontends: { a: '10.77.0.1:80', b: '10.77.0.2:80' }
    rules:
      - { name: images, when: { path: '/images/*', header: { x-size: [small, large] } }, send_to: [b, local] }
      - { name: near, when: { client: 192.0.2.0/24 }, send_to: b }
    default: local
";
    std::fs::write(&path, text).unwrap();
    let fixed = ["explain", path.to_str().unwrap(), "--service", "web"];
    baton(fixed.iter().chain(arguments))
}

#[test]
fn explain_names_the_rule_the_server_and_why_earlier_rules_do_not_match() {
    let directory = tempfile::tempdir().unwrap();
    let asked = ["--node", "a", "--http", "GET /images/1", "--header", "X-Size: huge", "--client", "192.0.2.7", "--json"];
    let output = explain(directory.path(), &asked);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let expected = serde_json::json!({
        "cluster": "shop",
        "node": "a",
        "service": "web",
        "frontend": "10.77.0.1:80",
        "client": "192.0.2.7",
        "request": { "method": "GET", "host": "10.77.0.1", "path": "/images/1", "client": "192.0.2.7" },
        "outcome": "decided",
        "ambiguity": null,
        "rule": "near",
        "candidates": ["b"],
        "while_local_is_down": [],
        "down": [],
        "choice": null,
        "or_reset": false,
        "forward": { "configured": "overlay", "overlay_because": "the service says so" },
        "mode": "route",
        "answered_by": "b",
        "rules": [
            {
                "rule": "images",
                "conditions": "path /images/*, header x-size small or large",
                "matched": false,
                "unmet": {
                    "condition": "header x-size",
                    "seen": "huge",
                    "reason": "header x-size has the value \"huge\", which is none of its values"
                }
            },
            { "rule": "near", "conditions": "client 192.0.2.0/24", "matched": true, "unmet": null }
        ]
    });
    assert_eq!(json, expected);

    let output = explain(directory.path(), &["--node", "a", "--http", "GET /images/1", "--header", "X-Size: small"]);
    assert!(stdout(&output).contains("rule     images\nserver   b; if it cannot, a (the local server)\n"), "{}", stdout(&output));
    let output = explain(directory.path(), &["--node", "b", "--http", "GET /images/1", "--header", "X-Size: small"]);
    assert!(stdout(&output).contains("server   b (the local server)\n"), "{}", stdout(&output));
}

#[test]
fn explain_needs_no_request_where_the_syn_decides_and_asks_for_one_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    assert_fails(&explain(directory.path(), &["--node", "a"]), 2, "--http");
    assert_fails(&explain(directory.path(), &["--node", "a", "--http", "GET / HTTP/2"]), 2, "leave the version out");
    let path = directory.path().join("mail.yaml");
    let text = EXPLAINED_ON_SYN;
    std::fs::write(&path, text).unwrap();
    let asked = ["explain", path.to_str().unwrap(), "--node", "a", "--service", "mail", "--json", "--client"];
    for (client, server) in [("192.0.2.1", "b"), ("203.0.113.1", "a")] {
        let output = baton(asked.iter().copied().chain([client]));
        let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(answer["answered_by"], server, "{answer}");
    }
}

const EXPLAINED_ON_SYN: &str = "
cluster: mail
overlay: { port: 7400, aliases: 198.18.0.0/16 }
nodes:
  a: { address: 10.77.0.1, public_key: bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U= }
  b: { address: 10.77.0.2, public_key: jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8= }
services:
  mail:
    frontends: { a: 10.77.0.1:25 }
    servers: { a: { port: 25 }, b: { port: 25 } }
    inspect: none
    rules: [{ name: near, when: { client: 192.0.2.0/24 }, send_to: b }]
";

#[test]
fn explain_reads_a_request_as_it_was_sent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("request");
    for (bytes, outcome, ambiguity) in [
        ("GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "decided", serde_json::Value::Null),
        ("GET /x HTTP/1.1\r\nHost: a\r\n", "incomplete", serde_json::Value::Null),
        ("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "ambiguous", "host_repeated".into()),
        ("\u{16}\u{3}\u{1}", "ambiguous", "not_http".into()),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let arguments = ["--node", "a", "--request", path.to_str().unwrap()];
        let output = explain(directory.path(), &[&arguments[..], &["--json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!((&json["outcome"], &json["ambiguity"]), (&outcome.into(), &ambiguity), "{json}");
        assert_eq!((&json["rule"], &json["answered_by"]), (&"default".into(), &"a".into()), "{json}");
        if ambiguity != serde_json::Value::Null {
            let text = stdout(&explain(directory.path(), &arguments));
            assert!(text.contains(&format!("ambiguous ({})", ambiguity.as_str().unwrap())), "{text}");
        }
    }
    std::fs::remove_file(&path).unwrap();
    assert_fails(&explain(directory.path(), &["--node", "a", "--request", path.to_str().unwrap()]), 3, "request");
}

#[test]
fn explain_takes_a_server_name_and_protocols() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tls.yaml");
    let fixed = ["explain", example.to_str().unwrap(), "--node", "front", "--service", "https"];
    let explain = |arguments: &[&str]| {
        let output = baton(fixed.iter().chain(arguments));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        stdout(&output)
    };
    let text = explain(&["--sni", "API.example.com", "--alpn", "h2", "--alpn", "http/1.1"]);
    assert!(text.contains("request  sni api.example.com, alpn h2, http/1.1, tls_version 1.3, ech false\n"), "{text}");
    assert!(text.contains("\nrule     grpc\nserver   api; if it cannot, front (the local server)\n"), "{text}");
    let text = explain(&["--sni", ""]);
    assert!(text.contains("request  sni none, alpn none, tls_version 1.3, ech false\n"), "{text}");
    assert!(text.contains("the client names no server"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&explain(&["--sni", "img.example.com", "--json"])).unwrap();
    assert_eq!(
        json["request"],
        serde_json::json!({ "sni": "img.example.com", "alpn": null, "tls_version": "1.3", "ech": "false", "client": null })
    );
    assert_eq!((&json["rule"], &json["answered_by"]), (&"images".into(), &"media".into()), "{json}");
}

/// For each rule of `every-field.yaml` before the one that decides: the condition that fails first and what was seen there.
fn unmet(arguments: &[&str]) -> Vec<(String, Option<String>)> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/every-field.yaml");
    let fixed = ["explain", example.to_str().unwrap(), "--node", "one"];
    let output = baton(fixed.iter().chain(arguments).chain(&["--json"]));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    // The same in words.
    let text = stdout(&baton(fixed.iter().chain(arguments)));
    let rules = answer["rules"].as_array().unwrap().iter().filter(|rule| rule["matched"] == false);
    rules
        .map(|rule| {
            let unmet = &rule["unmet"];
            assert!(text.contains(&format!("  no   {}", rule["rule"].as_str().unwrap())), "{text}");
            assert!(text.contains(unmet["reason"].as_str().unwrap()), "{text}");
            (unmet["condition"].as_str().unwrap().to_owned(), unmet["seen"].as_str().map(str::to_owned))
        })
        .collect()
}

fn seen(condition: &str, value: &str) -> (String, Option<String>) {
    (condition.to_owned(), Some(value.to_owned()))
}

#[test]
fn explain_tells_the_first_condition_that_fails_and_what_was_seen_of_every_protocol() {
    let request = ["--service", "web", "--client", "10.1.1.1", "--http", "GET /v7/x?id=7", "--header", "X-Version: 2.1"];
    let body = ["--header", "Cookie: sid=x", "--body", "{\"model\": \"phi\"}"];
    let told = unmet(&[&request[..], &body].concat());
    assert_eq!(told[2], seen("json /model", "phi"), "{told:?}");
    let told = unmet(&[&request[..], &body[..2]].concat());
    assert_eq!(told[2], ("json /model".to_owned(), None), "without a body: {told:?}");

    assert_eq!(unmet(&["--service", "web-tls", "--sni", "x.test"])[0].1.as_deref(), None, "no client is given");
    let told = unmet(&["--service", "web-tls", "--sni", "x.test", "--client", "10.1.1.1"]);
    assert_eq!(told[0], seen("sni", "x.test"), "{told:?}");
    assert_eq!(told[1], seen("sni", "x.test"), "{told:?}");

    assert_eq!(unmet(&["--service", "cache", "--redis", "DEL user:1"])[0], seen("command", "DEL"));
    assert_eq!(unmet(&["--service", "cache", "--redis", "GET item:1"])[0], seen("key", "item:1"));
    let told = unmet(&["--service", "lines", "--raw", "NOOP\\r\\n"]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|(_, value)| value.as_deref().is_some_and(|value| value.starts_with("NOOP"))), "{told:?}");
}

#[test]
fn explain_refuses_what_is_not_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    assert_fails(&explain(directory.path(), &["--node", "z", "--http", "GET /"]), 1, "there is no node `z`");
    let elsewhere = ["--node", "a", "--http", "GET /", "--frontend", "10.77.0.2:80"];
    assert_fails(&explain(directory.path(), &elsewhere), 1, "10.77.0.2:80 is no front-end address of service web on node a");
    let file = directory.path().join("explained.yaml");
    let line = ["explain", file.to_str().unwrap(), "--node", "a", "--service", "shop", "--http", "GET /"];
    assert_fails(&baton(line), 1, "there is no service `shop`");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("send_to: b }", "send_to: c }")).unwrap();
    let line = ["explain", file.to_str().unwrap(), "--node", "a", "--service", "web", "--http", "GET /"];
    assert_fails(&baton(line), 1, &format!("{}:11:64: ", file.display()));
}

/// A command without the privilege to change the network, which root has to give away; setpriv(1) belongs to the
/// essential packages.
fn unprivileged<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new("setpriv")
        .args(["--inh-caps=-net_admin", "--bounding-set=-net_admin"])
        .arg(assert_cmd::cargo::cargo_bin("baton"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn doctor_says_what_run_says_and_is_code_1() {
    let output = unprivileged(["doctor"]);
    assert_eq!(code(&output), 1);
    assert_eq!(stderr(&output), "", "the list is all there is to say");
    let text = stdout(&output);
    let line = text.lines().position(|line| line.starts_with("ERROR    privilege ")).expect("an error about privilege");
    assert!(text.lines().nth(line + 1).unwrap().trim_start().starts_with("-> run as root"), "{text}");
    assert!(text.trim_end().ends_with("`baton run` cannot start"), "{text}");
}

#[test]
fn doctor_prints_json_for_programs() {
    let directory = tempfile::tempdir().unwrap();
    let (key, public) = key_file(directory.path(), "a.key");
    let file = cluster_file(directory.path(), &public);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (key, file) = (key.to_str().unwrap(), file.to_str().unwrap());
    let output = unprivileged(["doctor", "--json", "--node", "a", "--key", key, file]);
    assert_eq!(code(&output), 1);
    let list: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let checks = list["checks"].as_array().unwrap();
    let of = |subject: &str| checks.iter().find(|check| check["subject"] == subject).unwrap_or_else(|| panic!("{list}"));
    assert_eq!(of("cluster file")["outcome"], "ok");
    assert_eq!(of("privilege")["outcome"], "error");
    assert_eq!(of("key")["outcome"], "error");
    assert!(of("key")["remedy"].as_str().unwrap().contains("chmod 600"), "{list}");
    assert!(of("addresses")["what"].as_str().unwrap().contains("loopback"), "{list}");
}

#[test]
fn doctor_shows_what_is_wrong_with_a_cluster_file() {
    let directory = tempfile::tempdir().unwrap();
    let (_, public) = key_file(directory.path(), "a.key");
    let file = cluster_file(directory.path(), &public);
    let output = baton(["doctor", "--node", "z", file.to_str().unwrap()]);
    assert_eq!(code(&output), 1);
    assert!(stdout(&output).contains("there is no node `z`"), "{}", stdout(&output));
    assert_fails(&baton(["doctor", "--node", "a"]), 2, "CLUSTER.yaml");
    assert_fails(&baton(["doctor", file.to_str().unwrap()]), 2, "--node");
}

#[test]
fn cleanup_without_privilege_is_code_3() {
    assert_fails(&unprivileged(["cleanup"]), 3, "CAP_NET_ADMIN");
}
