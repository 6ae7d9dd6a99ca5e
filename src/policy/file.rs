//! A whole cluster file: read, checked, and compared with another node's.

use super::reader::Field;
use super::report::{self, Problems, Report, Severity};
use super::service::ReadService;
use super::yaml::{self, SyntaxError};
use super::{Limits, Node, PolicyHash, Service, check, cluster, hash, service, syntax, units};
use crate::limits::cluster_file as bounds;
use ipnet::IpNet;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

/// What a cluster file says: the same on every node. [`ClusterFile::compile`] makes a [`super::Policy`] of it.
#[derive(Clone, Debug)]
pub struct ClusterFile {
    /// Cluster name.
    pub cluster: String,
    /// UDP and TCP port nodes talk on.
    pub overlay_port: u16,
    /// Alias prefixes, at most one per family.
    pub aliases: Vec<IpNet>,
    /// All nodes, sorted by name.
    pub nodes: Vec<Node>,
    /// Limits.
    pub limits: Limits,
    /// What is probably not meant; empty for a good file.
    pub warnings: Report,
    /// Sorted by name. Targets are as the file names them: a node can be its own target here.
    pub(super) services: Vec<Service>,
}

impl ClusterFile {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, Report> {
        Self::parse(&path.display().to_string(), &Self::read_text(path)?)
    }

    /// Reads a file for [`ClusterFile::parse`]. The one function of the policy that does I/O.
    pub fn read_text(path: &Path) -> Result<String, Report> {
        let name = path.display().to_string();
        match read_bytes(path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(text),
                Err(_) => {
                    let remedy = "is this the cluster file? If it is, save it as UTF-8";
                    Err(Report::unreadable(&name, "the file is not UTF-8 text".to_owned(), remedy))
                }
            },
            Err(error) => {
                let message = format!("the file cannot be read: {error}");
                Err(Report::unreadable(&name, message, unreadable_remedy(error.kind())))
            }
        }
    }

    /// Reads and checks a text; `file_name` is what problems call it. Either every error that can be found is in the
    /// report, in the order of the file, or there is none.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Report> {
        if text.len() > bounds::FILE_BYTES_MAX {
            let message = format!("the file has more than {}", units::format_bytes(bounds::FILE_BYTES_MAX as u64));
            return Err(Report::unreadable(file_name, message, "is this the cluster file?"));
        }
        // A byte order mark says nothing in UTF-8, and YAML allows it (YAML 1.2, section 5.2).
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let tree = yaml::parse(text).map_err(|error| syntax_report(file_name, text, &error))?;
        let mut problems = Problems::default();
        let file = read_root(&Field::root(&tree), &mut problems);
        let report = problems.into_report(file_name, text);
        match file {
            Some(file) if !report.has_errors() => Ok(Self { warnings: report, ..file }),
            _ => Err(report),
        }
    }

    /// One line for `baton check`.
    pub fn summary(&self) -> String {
        let count = |number: usize, thing: &str| format!("{number} {thing}{}", if number == 1 { "" } else { "s" });
        let rules = self.services.iter().map(Service::rule_count).sum();
        let nodes = count(self.nodes.len(), "node");
        let services = count(self.services.len(), "service");
        format!("cluster {}: {nodes}, {services}, {}", self.cluster, count(rules, "rule"))
    }

    /// The hash of the meaning. It covers everything that changes what any node does.
    pub fn hash(&self) -> PolicyHash {
        hash::of(self)
    }
}

fn unreadable_remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "check the path: no such file is there",
        ErrorKind::PermissionDenied => "let this user read it (`ls -l` shows who may), or become one who may",
        ErrorKind::IsADirectory => "give the path of the file in it, such as `/etc/baton/cluster.yaml`",
        _ => "check the path and the file's permissions",
    }
}

/// The file's bytes, one more than may be read at most: a wrong path may lead to anything.
fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bytes_max = bounds::FILE_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn syntax_report(file_name: &str, text: &str, error: &SyntaxError) -> Report {
    let (message, remedy) = syntax::explain(error, text);
    let problem = report::problem_at(file_name, text, Severity::Error, error.position, message, remedy);
    Report { problems: vec![problem] }
}

fn read_root(root: &Field<'_>, problems: &mut Problems) -> Option<ClusterFile> {
    let fields = root.mapping(&["cluster", "overlay", "nodes", "services", "limits"], problems)?;
    let cluster = fields.required("cluster", problems).and_then(|field| cluster::cluster_name(&field, problems));
    let overlay_field = fields.required("overlay", problems);
    let overlay = overlay_field.as_ref().and_then(|field| cluster::overlay(field, problems));
    let nodes_field = fields.required("nodes", problems)?;
    let (names, nodes) = cluster::nodes(&nodes_field, problems);
    let mut services: Vec<ReadService> = Vec::new();
    if let Some(field) = fields.required("services", problems) {
        let entries = field.entries(problems).unwrap_or_default();
        if entries.len() > bounds::SERVICES_MAX {
            let message = format!("there can be at most {} services, here are {}", bounds::SERVICES_MAX, entries.len());
            problems.error(&field.place.key(), message, "split the cluster");
        }
        services.extend(entries.iter().filter_map(|entry| service::service(entry, &names, problems)));
    }
    let limits_field = fields.optional("limits");
    let limits = cluster::limits(limits_field.as_ref(), problems);
    check::frontends_are_unique(&services, problems);
    if let (Some(overlay), Some(field)) = (&overlay, &overlay_field) {
        check::overlay_port_is_free(overlay.port, &field.place.key(), &services, &nodes, problems);
        check::aliases_suffice(overlay, &field.place.key(), &services, &nodes, problems);
    }
    if let Some(field) = limits_field {
        check::limits_fit(&limits, &field.place.key(), &services, problems);
    }
    // Who has no part shows only in a file that is otherwise right.
    if !problems.has_errors() {
        check::every_node_has_a_part(&services, &nodes, problems);
        check::every_server_is_sent_to(&services, &nodes, problems);
        check::links_are_possible(&services, &nodes, problems);
    }
    let overlay = overlay?;
    let mut services: Vec<Service> = services.into_iter().map(|read| read.service).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Some(ClusterFile {
        cluster: cluster?,
        overlay_port: overlay.port,
        aliases: overlay.aliases.into_iter().map(|(prefix, _)| prefix).collect(),
        nodes: nodes.into_iter().map(|(node, _)| node).collect(),
        limits,
        warnings: Report::default(),
        services,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SHOP, file};
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_summary_counts() {
        assert_eq!(file(SHOP).summary(), "cluster shop: 3 nodes, 1 service, 4 rules");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let file = file(SHOP);
        let service = &file.services[0];
        assert_eq!(service.inspect_bytes_max, 16 << 10);
        assert_eq!(service.silence_timeout, Duration::from_secs(60));
        assert_eq!(service.handoff_timeout, Duration::from_secs(1));
        assert_eq!(file.limits.connections, crate::limits::CONNECTIONS_DEFAULT);
        assert_eq!(file.limits.drain_timeout, Duration::from_secs(30));
        assert!(file.warnings.is_empty());
    }

    #[test]
    fn without_servers_a_node_serves_on_the_port_of_its_front_end_address() {
        let text = SHOP.replace("servers: { a: { port: 80 }, b: { port: 80 }, c: { port: 8080 } }", "");
        let text = text.replace("[c, b, local]", "b").replace("b: \"10.77.0.2:80\"", "b: \"10.77.0.2:81\"");
        let ports: Vec<u16> = file(&text).services[0].servers.iter().map(|server| server.1).collect();
        assert_eq!(ports, [80, 81]);
    }

    #[test]
    fn a_file_that_is_not_there_says_so() {
        let report = ClusterFile::read(Path::new("/nonexistent/shop.yaml")).unwrap_err();
        let first = report.to_string();
        assert!(first.starts_with("/nonexistent/shop.yaml: the file cannot be read: "), "{first}");
    }

    #[test]
    fn what_editors_add_to_a_text_changes_nothing() {
        let hash = file(SHOP).hash();
        for text in
            [format!("\u{feff}{SHOP}"), SHOP.replace('\n', "\r\n"), format!("---\n{SHOP}...\n"), format!("{SHOP}\n\n# end")]
        {
            assert_eq!(file(&text).hash(), hash, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_readable_text_says_what_to_do() {
        let directory = std::env::temp_dir();
        let said = |path: &Path| ClusterFile::read(path).unwrap_err().to_string();
        assert!(said(&directory).contains("= give the path of the file in it"), "{}", said(&directory));
        let binary = directory.join(format!("baton-{}-binary", std::process::id()));
        for (bytes, remedy) in [
            (b"\x7fELF\xff\xfe\0\0".as_slice(), "= is this the cluster file?"),
            (b"c\0l\0u\0s\0", "not as UTF-16"),
            (b"", "= begin with `cluster: NAME`"),
        ] {
            std::fs::write(&binary, bytes).unwrap();
            assert!(said(&binary).contains(remedy), "{}", said(&binary));
        }
        std::fs::remove_file(binary).unwrap();
    }

    #[test]
    fn off_and_what_tools_make_of_it_are_the_same() {
        let plain = file(SHOP).hash();
        for off in ["probe: off", "probe: false", "proxy_protocol: off", "proxy_protocol: false"] {
            assert_eq!(file(&SHOP.replace("    servers:", &format!("    {off}\n    servers:"))).hash(), plain, "{off}");
        }
    }

    #[test]
    fn a_file_too_large_is_not_read_as_yaml() {
        let report = ClusterFile::parse("large.yaml", &"# x\n".repeat(1 << 21)).unwrap_err();
        assert!(report.to_string().starts_with("large.yaml: the file has more than 4MiB"), "{report}");
    }
}
