//! QR codes: for a terminal in half blocks, for a page as SVG.

use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write as _;
use std::string::String;

/// Lines of half blocks, light on dark as a terminal is; nothing when `text` is too long for a code.
pub fn text(text: &str) -> String {
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Low) else { return String::new() };
    let (from, to) = (-QUIET_MODULES, code.size() + QUIET_MODULES);
    let mut lines = String::new();
    for y in (from..to).step_by(2) {
        for x in from..to {
            lines.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (false, false) => '\u{2588}',
                (false, true) => '\u{2580}',
                (true, false) => '\u{2584}',
                (true, true) => ' ',
            });
        }
        lines.push('\n');
    }
    lines
}

/// A picture of it, dark on white; nothing when `text` is too long for a code.
pub fn svg(text: &str) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let side = code.size() + 2 * QUIET_MODULES;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let (x, y) = (x + QUIET_MODULES, y + QUIET_MODULES);
            // A string takes everything.
            let _ = write!(path, "M{x},{y}h1v1h-1z");
        }
    }
    Some(std::format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" \
         shape-rendering=\"crispEdges\"><path fill=\"#fff\" d=\"M0,0h{side}v{side}H0z\"/>\
         <path d=\"{path}\"/></svg>"
    ))
}

/// Left free around a code, so that it is found (ISO/IEC 18004 asks for four, readers need two).
const QUIET_MODULES: i32 = 3;
