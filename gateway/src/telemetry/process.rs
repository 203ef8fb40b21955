//! What the operating system says of this process, and which build it is.

use super::page::{Kind, Page};

/// Writes build and process metrics to `page`. Where `/proc` cannot be read, the process metrics are left out.
pub fn write(page: &mut Page) {
    page.family(Kind::Gauge, "tidegate_build_info", "Always 1; its labels say which build this is.").put(
        "",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1.0,
    );
    if let Some(resident) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Memory of the process that is resident, in bytes.", resident);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let open = i64::try_from(open.count()).unwrap_or(i64::MAX);
        page.gauge("process_open_fds", "File descriptors that are open.", open);
    }
    if let Some(limit) = descriptor_limit() {
        page.gauge("process_max_fds", "File descriptors that may be open.", limit);
    }
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn descriptor_limit() -> Option<i64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_says_how_large_it_is() {
        let mut page = Page::default();
        write(&mut page);
        let value = |name: &str| page.families().iter().find(|family| family.name == name).unwrap().samples[0].value;
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
    }
}
