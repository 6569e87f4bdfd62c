//! Builds the layer between the embedded store and its files.

fn main() {
    println!("cargo:rerun-if-changed=disk/layer.c");
    cc::Build::new()
        .file("disk/layer.c")
        .std("c11")
        .opt_level(2)
        .warnings(true)
        .extra_warnings(true)
        .compile("layer");
}
