"""What bytes of providers mean: hosts, forms, codings, streams and JSON; pure, and read by both packages."""
