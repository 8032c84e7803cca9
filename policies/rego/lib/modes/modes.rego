# METADATA
# title: Modes of rules
# description: A rule enforces unless the operator's configuration says warn, dryrun or off for this request.
package portcullis.lib.modes

default mode(_) := "enforce"

mode(rule) := input.config.modes[rule] if input.config.modes[rule] in {"warn", "dryrun", "off"}
