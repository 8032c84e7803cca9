# METADATA
# title: Approved images
# description: Every container's image comes from a registry and repository that the operator approved.
# custom:
#   severity: high
#   message: "the image {image} of container {container} is not from an approved registry and repository"
#   messages:
#     unreadable: "the image of container {container} cannot be read as an OCI reference"
#     no_digest: "the image {image} of container {container} is not pinned by a digest"
#   remediation: Push the image to an approved registry, or have an operator approve this one.
#   remediations:
#     unreadable: Write REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST.
#     no_digest: Write the image as REGISTRY/REPOSITORY@sha256:DIGEST.
#   controls: [soc2/cc6.8, nist-ai-rmf/map-4.1, eu-ai-act/art-15]
package portcullis.rules.admission["approved-images"]

import data.portcullis.lib.images
import data.portcullis.lib.workloads

default checked := false

checked if is_array(input.request.containers)

deny contains {"path": container.path, "args": {"reason": "unreadable", "container": container.name}} if {
	workloads.changes
	some container in input.request.containers
	not readable(container)
}

deny contains {"path": container.path, "args": {"image": images.shown(container.image), "container": container.name}} if {
	workloads.changes
	some container in input.request.containers
	readable(container)
	not images.approved(container.image)
}

deny contains {"path": container.path, "args": args} if {
	workloads.changes
	input.config.require_image_digest == true
	some container in input.request.containers
	readable(container)
	not pinned(container.image)
	args := {"reason": "no_digest", "image": images.shown(container.image), "container": container.name}
}

readable(container) if is_object(container.image)

pinned(image) if is_string(image.digest)
