#![no_main]

fuzz::target!(
    "feature_network",
    fuzz::formats::feature_networks,
    fuzz::formats::read_feature_network
);
