//! A whole cluster file: read, checked, and compared with another node's.

use super::reader::Field;
use super::report::{self, Problems, Report, Severity};
use super::service::ReadService;
use super::yaml::{self, Position};
use super::{Limits, Node, Service, Target, bounds, check, cluster, service};
use ipnet::IpNet;
use std::fmt;
use std::fmt::Write as _;
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

/// A hash of what a cluster file means: files that differ in comments, order of names or spelling only have the same.
/// Nodes compare it when they meet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyHash(pub [u8; 32]);

impl ClusterFile {
    /// Reads and checks a file. The one function of the policy that does I/O.
    pub fn read(path: &Path) -> Result<Self, Report> {
        let name = path.display().to_string();
        match std::fs::read(path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Self::parse(&name, &text),
                Err(_) => Err(Report::unreadable(
                    &name,
                    "the file is not UTF-8 text".to_owned(),
                    "save it as UTF-8",
                )),
            },
            Err(error) => {
                let message = format!("the file cannot be read: {error}");
                Err(Report::unreadable(
                    &name,
                    message,
                    "check the path and the file's permissions",
                ))
            }
        }
    }

    /// Reads and checks a text; `file_name` is what problems call it. Either every error that can be found is in the
    /// report, in the order of the file, or there is none.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Report> {
        if text.len() > bounds::FILE_BYTES_MAX {
            let message = format!(
                "the file has {} bytes; at most {} are read",
                text.len(),
                bounds::FILE_BYTES_MAX
            );
            return Err(Report::unreadable(
                file_name,
                message,
                "is this the cluster file?",
            ));
        }
        let tree = yaml::parse(text)
            .map_err(|error| syntax_report(file_name, text, error.position, error.message))?;
        let mut problems = Problems::default();
        let file = read_root(&Field::root(&tree), &mut problems);
        let report = problems.into_report(file_name, text);
        match file {
            Some(file) if !report.has_errors() => Ok(Self {
                warnings: report,
                ..file
            }),
            _ => Err(report),
        }
    }

    /// One line for `baton check`.
    pub fn summary(&self) -> String {
        let count = |number: usize, thing: &str| {
            format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
        };
        let rules = self.services.iter().map(Service::rule_count).sum();
        let nodes = count(self.nodes.len(), "node");
        let services = count(self.services.len(), "service");
        format!(
            "cluster {}: {nodes}, {services}, {}",
            self.cluster,
            count(rules, "rule")
        )
    }

    /// The hash of the meaning. It covers everything that changes what any node does.
    pub fn hash(&self) -> PolicyHash {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.canonical().as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        PolicyHash(hash)
    }

    /// The meaning as text, each thing in exactly one spelling. Texts of the file are written with their length or in
    /// quotes, so that no two meanings run together.
    fn canonical(&self) -> String {
        let mut text = String::new();
        let node_name = |id: crate::flow::NodeId| {
            self.nodes
                .get(usize::from(id.0))
                .map_or("", |node| &node.name)
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "baton 1 cluster {:?} port {} aliases {:?}",
            self.cluster, self.overlay_port, self.aliases
        );
        for node in &self.nodes {
            let _ = writeln!(
                text,
                "node {:?} {} {:?}",
                node.name, node.address, node.public_key
            );
        }
        let targets = |targets: &[Target]| -> Vec<String> {
            let name = |target: &Target| match target {
                Target::Local => "local".to_owned(),
                Target::Node(id) => format!("node {}", node_name(*id)),
            };
            targets.iter().map(name).collect()
        };
        for service in &self.services {
            let Service {
                name,
                frontends,
                servers,
                inspect_timeout,
                inspect_bytes_max,
                ..
            } = service;
            let Service {
                silence_timeout,
                handoff_timeout,
                rules,
                default,
                ..
            } = service;
            let _ = writeln!(
                text,
                "service {name:?} {inspect_timeout:?} {inspect_bytes_max} {silence_timeout:?} {handoff_timeout:?}"
            );
            for (node, endpoint) in frontends {
                let _ = writeln!(text, "frontend {:?} {endpoint}", node_name(*node));
            }
            for (node, port) in servers {
                let _ = writeln!(text, "server {:?} {port}", node_name(*node));
            }
            for rule in rules {
                let _ = writeln!(
                    text,
                    "rule {:?} {:?} {:?}",
                    rule.name,
                    rule.when,
                    targets(&rule.targets)
                );
            }
            let _ = writeln!(text, "default {:?}", targets(default));
        }
        let _ = writeln!(text, "limits {:?}", self.limits);
        text
    }
}

fn syntax_report(file_name: &str, text: &str, position: Position, message: String) -> Report {
    let remedy =
        "the text is not YAML from here on; look at this line and at the one before it".to_owned();
    let problem = report::problem_at(file_name, text, Severity::Error, position, message, remedy);
    Report {
        problems: vec![problem],
    }
}

fn read_root(root: &Field<'_>, problems: &mut Problems) -> Option<ClusterFile> {
    let fields = root.mapping(
        &["cluster", "overlay", "nodes", "services", "limits"],
        problems,
    )?;
    let cluster = fields
        .required("cluster", problems)
        .and_then(|field| cluster::cluster_name(&field, problems));
    let overlay_field = fields.required("overlay", problems);
    let overlay = overlay_field
        .as_ref()
        .and_then(|field| cluster::overlay(field, problems));
    let nodes_field = fields.required("nodes", problems)?;
    let (names, nodes) = cluster::nodes(&nodes_field, problems);
    let mut services: Vec<ReadService> = Vec::new();
    if let Some(field) = fields.required("services", problems) {
        let entries = field.entries(problems).unwrap_or_default();
        if entries.len() > bounds::SERVICES_MAX {
            let message = format!(
                "there can be at most {} services, here are {}",
                bounds::SERVICES_MAX,
                entries.len()
            );
            problems.error(&field.place.key(), message, "split the cluster");
        }
        services.extend(
            entries
                .iter()
                .filter_map(|entry| service::service(entry, &names, problems)),
        );
    }
    let limits_field = fields.optional("limits");
    let limits = cluster::limits(limits_field.as_ref(), problems);
    check::frontends_are_unique(&services, problems);
    if let (Some((_, aliases)), Some(field)) = (&overlay, &overlay_field) {
        check::aliases_suffice(aliases, &field.place.key(), &services, &nodes, problems);
    }
    if let Some(field) = limits_field {
        check::limits_fit(&limits, &field.place.key(), &services, problems);
    }
    let (overlay_port, aliases) = overlay?;
    let mut services: Vec<Service> = services.into_iter().map(|read| read.service).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Some(ClusterFile {
        cluster: cluster?,
        overlay_port,
        aliases: aliases.into_iter().map(|(prefix, _)| prefix).collect(),
        nodes: nodes.into_iter().map(|(node, _)| node).collect(),
        limits,
        warnings: Report::default(),
        services,
    })
}

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
