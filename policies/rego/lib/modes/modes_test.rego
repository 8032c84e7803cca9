package portcullis.lib.modes_test

import data.portcullis.lib.modes

test_silence_means_enforce if {
	modes.mode("admission/mine") == "enforce" with input as {"config": {"modes": {"admission/other": "off"}}}
}

test_a_mode_of_the_list if {
	every mode in ["warn", "dryrun", "off"] {
		modes.mode("admission/mine") == mode with input as {"config": {"modes": {"admission/mine": mode}}}
	}
}

test_any_other_word_enforces if {
	modes.mode("admission/mine") == "enforce" with input as {"config": {"modes": {"admission/mine": "allow"}}}
}
