#![no_main]

fuzz::target!("manifest", fuzz::formats::manifests, fuzz::formats::read_manifest);
