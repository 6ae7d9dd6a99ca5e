//! Other front-end addresses while the capture stands.

use super::*;

impl Capture {
    /// Captures for these front-end addresses, some of them `shared` with other nodes, from now on, in one transaction; on error it captures as before.
    ///
    /// Their families must be ones that there are aliases for. Addresses that are front-ends' no longer keep being told of
    /// ICMP errors: their handed-off connections go on.
    pub fn replace_frontends(&mut self, frontends: &[Endpoint], shared: &[Endpoint]) -> anyhow::Result<()> {
        let links = self.routing.links().context("listing network interfaces")?;
        let mut addresses = self.routing.addresses().context("listing addresses")?;
        addresses.retain(|host| host.link != self.device);
        let mut known = self.known.clone();
        known.extend(frontends);
        let mut config = CaptureConfig { frontends: frontends.to_vec(), shared: shared.to_vec(), ..self.config.clone() };
        preflight::check_addresses(&config.frontends, &config.aliases, &addresses)?;

        let families: Vec<(Family, Means)> = self.means.iter().map(|(family, means)| (*family, *means)).collect();
        if let Some(frontend) = frontends.iter().find(|frontend| !self.means.contains_key(&Family::of(frontend.address))) {
            anyhow::bail!("the front-end {frontend} is the first of its family, which needs a restart");
        }
        // Devices once captured from stay so: what they forward is undone at the end.
        let wanted = preflight::ingress(&mut self.routing, &config, &families, &links, &addresses, &self.first_values)?;
        let is_new =
            |ingress: &Ingress| !self.ingress.iter().any(|known| known.family == ingress.family && known.name == ingress.name);
        let new: Vec<Ingress> = wanted.into_iter().filter(is_new).collect();
        preflight::check_reverse_path(&new)?;
        // Before they forward at all; harmless if it goes no further.
        if !new.is_empty() {
            nft::apply(&self.ruleset().restrict(&new)).context("changing the nf_tables rules")?;
        }
        for ingress in &new {
            forward_from(ingress, &self.means, &mut self.first_values)?;
        }
        std::mem::swap(&mut self.config, &mut config);
        let transaction = self.ruleset().replace_frontends(&new, &known);
        if let Err(error) = nft::apply(&transaction).context("changing the nf_tables rules") {
            self.config = config;
            return Err(error);
        }
        self.ingress.extend(new);
        let known_list: Vec<Endpoint> = known.iter().copied().collect();
        self.heartbeats = heartbeat::packets(&known_list);
        self.known = known;
        info!("capture changed frontends={}", self.config.frontends.len());
        Ok(())
    }

    pub(super) fn ruleset(&self) -> Ruleset<'_> {
        Ruleset {
            device: &self.config.device,
            frontends: &self.config.frontends,
            shared: &self.config.shared,
            aliases: &self.config.aliases,
            ingress: &self.ingress,
            not_a_router: &[],
            guards_max: self.config.guards_max,
            tracking: self.tracking,
            links: None,
            bypass: self.bypass,
        }
    }
}
