//! stub
pub mod interface;
/// r
#[derive(serde::Serialize)]
pub struct Report;
impl Report { /// r
 pub fn render(&self) -> String { String::new() } /// h
 pub fn has_failures(&self) -> bool { false } }
/// r
pub fn run(_: Option<&crate::model::NodeSpec>) -> Report { Report }
