"""Rules for nftables on a Linux host."""
