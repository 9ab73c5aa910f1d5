//! Writes client and server of the gRPC service that `wire` compares with, as tonic-build writes
//! them from a `.proto` file, but without protoc.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let echo = Method::builder()
        .name("echo")
        .route_name("Echo")
        .input_type("crate::wire::grpc::Note")
        .output_type("crate::wire::grpc::Note")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let service = Service::builder().name("Desk").package("compare").method(echo).build();
    Builder::new().compile(&[service]);
}
