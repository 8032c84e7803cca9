# METADATA
# title: Workloads
# description: Facts about the object under admission that several rules share.
package portcullis.lib.workloads

import data.portcullis.lib.models

# Deleting gives back; no rule stands in its way.
changes if input.request.operation in {"CREATE", "UPDATE", "CONNECT"}

holds_gpu if input.request.gpu_shares > 0

registered contains models.ref(model) if some model in input.facts.models

# Bound in the body: the interpreter fails on a head that is undefined for one model and defined for the next.
digests contains digest if {
	some model in input.facts.models
	digest := model.manifest_digest
}
