"""Exports and flow logs that are recognised, so that an error can name them, but not read."""

from __future__ import annotations

from sgfast.clouds.logs.log_format import LogFormat

#: Clouds whose exports are not read. Each of their objects has this key, with a value that begins with this text.
UNREAD_CLOUDS = {"Google Cloud": ("kind", "compute#"), "Azure": ("type", "Microsoft.")}
#: Flow logs in the order of trial.
UNREAD_LOGS = (
    LogFormat(
        "an Azure network security group (NSG) flow log", json_patterns=((rb"NetworkSecurityGroupFlowEvent",),)
    ),
    LogFormat("an Azure virtual network (VNet) flow log", json_patterns=((rb"FlowLogFlowEvent|\"flowTuples\"",),)),
    LogFormat("a VCN flow log of Oracle Cloud", json_patterns=((rb"com\.oraclecloud\.vcn\.flowlogs",),)),
    LogFormat("a firewall rules log of Google Cloud", json_patterns=((rb'"rule_details"\s*:', rb'"src_ip"\s*:'),)),
    LogFormat(
        "a VPC flow log of Google Cloud",
        json_patterns=(
            (rb'"dest_ip"\s*:', rb'"src_ip"\s*:', rb'"(?:reporter|bytes_sent|packets_sent)"\s*:'),
        ),
    ),
    LogFormat("an EVE log of Suricata", json_patterns=((rb'"event_type"\s*:\s*"', rb'"src_ip"\s*:'),)),
    LogFormat("a flow log of Hubble (Cilium)", json_patterns=((rb'"verdict"\s*:', rb'"(?:l4|node_name|IP)"\s*:'),)),
    LogFormat("a VPC flow log of IBM Cloud", json_patterns=((rb'"(?:collector_crn|initiator_ip)"\s*:',),)),
    LogFormat(
        "NetFlow, sFlow or IPFIX records",
        json_patterns=((rb'(?i)"src_?addr"\s*:', rb'(?i)"(?:sampler_?address|etype|sampling_?rate)"\s*:'),),
    ),
    LogFormat("an ACL log of OVN", text_pattern=rb"\bacl_log\("),
    LogFormat(
        "a network policy log of Antrea",
        text_pattern=rb"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\S* .*\b(?:Antrea\w*|K8s)NetworkPolicy\b",
    ),
    LogFormat("output of nfdump", text_pattern=rb"^Flow Record:|^Date first seen"),
    LogFormat("records of Argus", text_pattern=rb"^StartTime,Flgs,Proto,SrcAddr\b"),
)
