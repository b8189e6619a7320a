//! Any query and any body that a client of the control socket may send.

use nuswitch::control::view::{Network, TraceRequest};
use nuswitch::control::{client, filter, hex};
use nuswitch::model;
use nuswitch::stats::PortSnapshot;

const NETWORKS: &str = "[[network]]\nname = \"a\"\n[[network]]\nname = \"b\"\nmtu = 9000\n";

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let model = model::load(NETWORKS, "api.toml").expect("two networks");
    let networks: Vec<Network> = model.networks.iter().map(|network| Network::of(network, 3)).collect();
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (key.to_owned(), value.to_owned())
    };
    let query: Vec<_> = text.split('&').map(pair).collect();
    if let Ok(list) = filter::list(&networks, &query) {
        assert!(list["networks"].as_array().expect("a list").len() <= networks.len());
    }
    let key = query[0].0.as_str();
    let _ = filter::show(&networks[0], key, &query);
    let _ = client::encode(text);
    if let Ok(bytes) = hex::decode(text) {
        assert_eq!(hex::decode(&hex::encode(&bytes)).expect("our own digits"), bytes);
    }
    if let Ok(request) = serde_json::from_str::<TraceRequest>(text) {
        let _ = hex::decode(&request.frame);
    }
    if let Ok(snapshot) = serde_json::from_str::<PortSnapshot>(text) {
        let again = serde_json::to_string(&snapshot).expect("counts");
        assert_eq!(serde_json::from_str::<PortSnapshot>(&again).expect("our own counts"), snapshot);
    }
}
