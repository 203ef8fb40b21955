//! Rebuilds when a migration changes, since they are embedded.

fn main() {
    std::io::Write::write_all(&mut std::io::stdout(), b"cargo:rerun-if-changed=../migrations\n").ok();
}
