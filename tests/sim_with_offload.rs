//! Every test of the simulation once more, on hosts whose kernels leave checksums and segmentation to the TUN: packets
//! reach the engine as super-segments with partial checksums where a real kernel would make them so.

#[path = "sim/main.rs"]
mod sim;
