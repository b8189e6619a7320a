//! Any text as a configuration: it is read or refused with diagnostics that can be shown, and what is read compiles.

use std::collections::HashMap;
use std::sync::Arc;

use nuswitch::frame::Caps;
use nuswitch::model;
use nuswitch::tables::Segments;
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::WorkerIdx;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match model::load(text, "fuzz.toml") {
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "a refusal says why");
            for diagnostic in diagnostics {
                let shown = diagnostic.render(text);
                assert!(!shown.is_empty());
                assert!(diagnostic.line >= 1 && diagnostic.line <= text.split('\n').count().max(1));
            }
        }
        Ok(model) => {
            assert!(model::diff(&model, &model).is_empty(), "a model differs from itself");
            let caps = Caps { checksum: true, tso: true, uso: true, mtu: 1500 };
            let device =
                |_| Device { worker: WorkerIdx(0), up: true, caps, mac: None, counters: Arc::default() };
            let devices: HashMap<_, _> =
                model.attachments().map(|device| device.key).map(|key| (key, ())).collect();
            let devices = devices.into_keys().map(|key| (key, device(()))).collect();
            let tables = compile(&model, &devices, &mut Places::default(), 1);
            let own = tables.ports.iter().flatten().filter(|port| {
                let without_device = matches!(
                    port.segments,
                    Segments::Tunnel(_) | Segments::Resolver | Segments::Router(_) | Segments::Service
                );
                !without_device
            });
            assert_eq!(own.count(), devices.len());
            assert_eq!(tables.networks.iter().flatten().count(), model.networks.len());
        }
    }
}
