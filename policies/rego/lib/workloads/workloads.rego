# METADATA
# title: Workloads
# description: Facts about the object under admission that several rules share.
package portcullis.lib.workloads

import data.portcullis.lib.models

# Deleting gives back; no rule stands in its way.
changes if input.request.operation in {"CREATE", "UPDATE", "CONNECT"}

holds_gpu if input.request.gpu_shares > 0

# A Scale or an autoscaler grows pods of another object, which was judged for its model and weights when it was admitted.
grows if {
	input.request.group == "autoscaling"
	input.request.kind in {"HorizontalPodAutoscaler", "Scale"}
}

grows if {
	input.request.group == "keda.sh"
	input.request.kind == "ScaledObject"
}

registered contains models.ref(model) if some model in input.facts.models

# Bound in the body: the interpreter fails on a head that is undefined for one model and defined for the next.
digests contains digest if {
	some model in input.facts.models
	digest := model.manifest_digest
}
