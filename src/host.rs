//! The machine that a program runs on.

/// The name of this machine; empty if unknown.
pub(crate) fn name() -> String {
    #[cfg(feature = "cluster")]
    let name = nix::unistd::gethostname()
        .ok()
        .map(|name| name.to_string_lossy().into_owned());
    #[cfg(not(feature = "cluster"))]
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok());
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}
