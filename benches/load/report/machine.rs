use std::fs;

use serde_json::{Value, json};

/// What a number means nothing without.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
}

impl Machine {
    /// Asks the system; what it does not tell is "unknown".
    pub(crate) fn detect() -> Self {
        let unknown = || "unknown".to_owned();
        let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model_name(&text));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        // All processors, not those that this process is pinned to.
        let online = fs::read_to_string("/sys/devices/system/cpu/online").ok();
        let cores = online.and_then(|text| crate::cores::parse_list(text.trim()).ok());
        Self {
            cpu: cpu.unwrap_or_else(unknown),
            cores: cores.map_or(0, |cores| cores.len()),
            kernel: kernel.map_or_else(unknown, |text| text.trim().to_owned()),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({ "cpu": self.cpu, "cores": self.cores, "kernel": self.kernel })
    }
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nmodel name\t: Other\n";
        assert_eq!(model_name(text).as_deref(), Some("Some CPU @ 2GHz"));
        assert_eq!(model_name("nothing"), None);
    }
}
