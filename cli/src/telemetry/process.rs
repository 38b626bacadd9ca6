//! The process itself, under the names that all Prometheus clients use.

use reckon_serving::rest::MetricsText;

/// What the system says of this process; what it does not say is left out.
pub fn metrics(into: &mut MetricsText) {
    into.begin("reckon_build_info", "gauge", "Which version runs; always 1.");
    into.value("reckon_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    #[cfg(target_os = "linux")]
    linux(into);
}

#[cfg(target_os = "linux")]
fn linux(into: &mut MetricsText) {
    if let Some(Usage { cpu_seconds, resident_bytes, started_ticks }) = usage() {
        into.single("process_cpu_seconds_total", "counter", "Processor time, user and system, seconds.", cpu_seconds);
        into.single("process_resident_memory_bytes", "gauge", "Memory resident.", resident_bytes);
        if let Some(boot) = booted() {
            let started = boot + started_ticks / ticks_per_second();
            into.single("process_start_time_seconds", "gauge", "When the process began, seconds since 1970.", started);
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        into.single("process_open_fds", "gauge", "Open descriptors.", open.count());
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        into.single("process_max_fds", "gauge", "Most descriptors that may be open.", most);
    }
}

#[cfg(target_os = "linux")]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    started_ticks: f64,
}

#[cfg(target_os = "linux")]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// From `/proc/self/stat` (proc(5)): the name, in brackets, may hold anything, so fields are counted behind it.
#[cfg(target_os = "linux")]
fn usage() -> Option<Usage> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let pages: u64 = fields.get(24 - 3)?.parse().ok()?;
    Some(Usage {
        cpu_seconds: (field(14)? + field(15)?) / ticks_per_second(),
        resident_bytes: pages * rustix::param::page_size() as u64,
        started_ticks: field(22)?,
    })
}

/// When the machine began, seconds since 1970.
#[cfg(target_os = "linux")]
fn booted() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured() {
        let mut text = MetricsText::default();
        metrics(&mut text);
        let text = text.finish();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") > 2.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_start_time_seconds") > 1.7e9);
    }
}
