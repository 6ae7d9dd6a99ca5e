//! How every field of the cluster file is written: what remedies tell someone to write, word for word.

/// An example of the field of this name, and of another way if there is one, to stand behind "write" or "add". None for
/// names that the file's author gives.
pub(super) fn of(name: &str, is_of_the_file: bool) -> Option<&'static str> {
    Some(match name {
        "cluster" => "`cluster: NAME`",
        "overlay" => "`overlay: { port: 7400, aliases: [\"198.18.0.0/16\"] }`",
        "nodes" if is_of_the_file => "`nodes: { NAME: { address: 10.77.0.1, public_key: \"...\" } }`",
        "services" => "`services: { NAME: { frontends: { NODE: \"10.77.0.1:80\" } } }`",
        "limits" => "`limits: { connections: 100000 }`",
        "port" if !is_of_the_file => "`port: 80`",
        "aliases" => "`aliases: [\"198.18.0.0/16\"]`",
        "address" => "`address: 10.77.0.1`, the address at which other nodes reach this one",
        "public_key" => "`public_key: \"...\"` with what `baton keygen` printed on that node",
        "frontends" => "`frontends: { NODE: \"10.77.0.1:80\" }`, the address that clients connect to",
        "servers" => "`servers: { NODE: { port: 80 } }`",
        "health" => "`health: { tcp: true }` or `health: { http: /healthz }`",
        "probe" => "`probe: { interval: 10s }` or `probe: off`",
        "rules" => "`rules:`, and below it `- { when: { path: \"/images/*\" }, send_to: NODE }` for each",
        "send_to" => "`send_to: local` or `send_to: NODE`",
        "nodes" => "`nodes: [NODE, NODE]`",
        "canary" => "`canary: { percent: 5, of: client }`",
        "percent" => "`percent: 5`",
        "of" => "`of: client` or `of: \"cookie:NAME\"`",
        "from" => "`from: 10.0.0.0/8`",
        "when" => "`when: { path: \"/images/*\" }`",
        "any" => "`any: [{ path: \"/images/*\" }, { host: img.example.com }]`",
        "all" => "`all: [{ path: \"/images/*\" }, { host: img.example.com }]`",
        "not" => "`not: { path: \"/images/*\" }`",
        "host" => "`host: img.example.com`",
        "path" => "`path: \"/images/*\"`",
        "method" => "`method: GET` or `method: [GET, HEAD]`",
        "client" => "`client: 192.0.2.0/24`",
        "header" => "`header: { NAME: VALUE }`, or `header: { NAME: true }` for any value",
        "cookie" => "`cookie: { NAME: VALUE }`, or `cookie: { NAME: true }` for any value",
        "query" => "`query: { NAME: VALUE }`, or `query: { NAME: true }` for any value",
        "json" => "`json: { /NAME: VALUE }`",
        "sni" => "`sni: img.example.com`, or `sni: false` for clients that name no server",
        "alpn" => "`alpn: h2`",
        _ => return None,
    })
}

/// Where a field belongs that stands somewhere else.
pub(super) fn belongs(name: &str) -> Option<&'static str> {
    Some(match name {
        "nodes" | "by" | "otherwise" | "bound" | "low" | "high" | "decay" => {
            "`send_to`: `send_to: { nodes: [NODE, NODE], by: random, otherwise: next }`"
        }
        "host" | "path" | "method" | "client" | "header" | "cookie" | "query" | "sni" | "alpn" => {
            "`when` of a rule: `when: { path: \"/images/*\" }`"
        }
        "percent" | "of" => "`canary` of a rule: `canary: { percent: 5, of: client }`",
        "when" | "send_to" | "canary" => "`rules` of a service: `- { when: { path: \"/images/*\" }, send_to: NODE }`",
        "tcp" | "http" => "`health` of a service: `health: { http: /healthz }`",
        "port" | "weight" => "`servers` of a service: `servers: { NODE: { port: 80, weight: 1 } }`",
        "address" | "public_key" => "`nodes`: `nodes: { NAME: { address: 10.77.0.1, public_key: \"...\" } }`",
        "aliases" => "`overlay`: `overlay: { port: 7400, aliases: [\"198.18.0.0/16\"] }`",
        "connections" | "first_flight_bytes" | "linger" | "drain_timeout" => "`limits` of the file: `limits: { linger: 5s }`",
        "frontends" | "servers" | "inspect" | "rules" | "default" | "health" | "probe" | "slow_start" | "mode" => {
            "a service: `services: { NAME: { frontends: { NODE: \"10.77.0.1:80\" } } }`"
        }
        _ => return None,
    })
}
