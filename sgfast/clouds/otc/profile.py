"""Open Telekom Cloud's defaults. The defaults of SPEC 2, 5.2 and 8.5 describe this cloud.

Source: "Security Groups and Security Group Rules", Open Telekom Cloud. Its ports are 1 to 65535.
"""

PROFILE: dict[str, object] = {}
