# METADATA
# title: Frozen
# description: No call goes to a frozen model, from a frozen caller or for a frozen tenant. No mode and no exemption weakens it.
# custom:
#   severity: critical
#   message: "this is frozen"
#   messages:
#     model: "{subject} is frozen"
#     caller: "the caller is frozen"
#     tenant: "the tenant {subject} is frozen"
#   remediation: Ask an administrator to unfreeze it (portcullis unfreeze) when the reason for the freeze is gone.
#   controls: [eu-ai-act/art-14, eu-ai-act/art-26-5, nist-ai-rmf/manage-2.4, soc2/cc7.4, hipaa/164.312-a-1]
package portcullis.rules.gateway.frozen

import data.portcullis.lib.freezes

default checked := false

checked if freezes.readable

deny contains {"path": "config.frozen", "args": reason} if some reason in freezes.reasons
