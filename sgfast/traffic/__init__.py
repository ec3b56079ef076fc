"""Traffic as it was recorded: captures and flow logs, made ready to be judged. It knows no engine.

    capture     reads pcap, pcapng and snoop as batches of frames
    preprocess  time window, filter, copies, tunnels and VPC marks of frames
    flow_logs   the meaning of flow log records, as frames that stand for them
"""
