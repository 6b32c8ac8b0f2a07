"""The catalogue of faults and properties: which test shows that each is dealt with."""

import ast

import pytest

from tests.subprocesses import ROOT

GRADIENTS, BAD = "test_gradient.py", "test_bad_parameters.py"
TEMPERING = "inference/test_parallel_tempering.py"
TRAINING, AROUND = "faults/test_training.py", "faults/test_surroundings.py"
RANKS = "faults/test_ranks.py"
SAFETY, SAVING = "test_persistence_safety.py", "test_atomic_save.py"

# What happens -> (file, test).
FAULTS = {
    "a loss that is NaN in the first or the last batch": [
        (TRAINING, "test_numbers_that_are_not_finite_are_caught"),
        (GRADIENTS, "test_a_loss_that_diverges_names_epoch_objective_and_knob"),
    ],
    "an infinite gradient": [(TRAINING, "test_numbers_that_are_not_finite_are_caught")],
    "fitted weights that are NaN": [(TRAINING, "test_spoilt_parameters_are_named")],
    "an energy that is unbounded below": [
        (TRAINING, "test_an_energy_without_a_bottom_is_caught_within_ten_epochs"),
        (BAD, "test_learning_rates_beyond_reason_diverge_loudly_or_not_at_all"),
    ],
    "scores that are constant": [
        (TRAINING, "test_a_dead_network_warns_that_scores_are_constant"),
        (TRAINING, "test_a_detector_of_equal_scores_warns"),
        ("autoencoders/test_autoencoder.py", "test_dead_and_collapsed_codes_are_named"),
    ],
    "persistent chains that all sit in one mode": [
        (TRAINING, "test_chains_that_all_sit_in_one_mode_are_warned_of"),
        (TRAINING, "test_chains_of_deep_energies_that_sit_together_are_warned_of"),
    ],
    "a sampler that accepts nothing": [
        (TRAINING, "test_an_acceptance_of_zero_is_warned_of"),
        ("inference/test_samplers.py", "test_a_proposal_that_is_no_number_is_a_rejection"),
    ],
    "a device without memory, at any chunk": [
        ("test_streaming.py", "test_out_of_memory_means_smaller_chunks"),
        ("test_streaming.py", "test_not_even_one_row_fits"),
    ],
    "a host without memory": [(TRAINING, "test_a_fit_that_runs_out_of_memory_says_what_to_do")],
    "a full disk while saving": [
        (SAVING, "test_a_failed_save_leaves_the_old_file_alone"),
        (SAVING, "test_a_killed_save_and_a_full_disk_leave_the_old_file"),
    ],
    "a kill while saving": [(SAVING, "test_a_killed_save_and_a_full_disk_leave_the_old_file")],
    "a file cut off at any of 64 places": [(SAFETY, "test_truncated_files_are_refused")],
    "a flipped bit": [(SAFETY, "test_flipped_bits_are_refused")],
    "pickles, archives and other foreign files": [
        (SAFETY, "test_foreign_files_are_refused_and_nothing_runs")
    ],
    "a header that claims 10^12 bytes": [(SAFETY, "test_false_claims_cost_no_memory")],
    "hostile names, callables, shapes, NaN and versions in a file": [
        (SAFETY, "test_hostile_metadata_is_refused"),
        ("faults/test_fuzz_load.py", "test_changed_content_is_refused_or_a_valid_model"),
    ],
    "a file of another format": [
        ("faults/test_stored_models.py", "test_older_formats_are_upgraded_and_newer_refused")
    ],
    "a worker that is killed in a search": [
        (AROUND, "test_a_killed_worker_ends_the_search_and_not_the_next_one")
    ],
    "a fit that fails in a search": [(AROUND, "test_a_failed_fit_in_a_search_is_an_error_score")],
    "an error on one of the processes that fit together": [
        (RANKS, "test_an_error_on_one_rank_ends_all_with_its_message"),
        (RANKS, "test_an_error_in_the_middle_of_a_fit_ends_all"),
        (RANKS, "test_a_killed_rank_does_not_leave_the_others_waiting"),
    ],
    "processes that hold different numbers of rows": [
        (RANKS, "test_uneven_parts_of_the_rows_are_all_learnt_from"),
        (RANKS, "test_every_rank_takes_the_same_steps_and_every_row_comes_once"),
    ],
    "Ctrl-C in a fit and in a search": [
        ("test_callback_contract.py", "test_an_interrupt_ends_a_whole_search"),
        (GRADIENTS, "test_an_interrupt_leaves_fit_and_search"),
        ("test_contract.py", "test_a_fault_while_learning_leaves_the_estimator_as_it_was"),
    ],
    "a callback that raises": [
        ("test_callback_contract.py", "test_a_fault_in_a_callback_leaves_the_estimator_as_it_was")
    ],
    "NaN far inside a file that is larger than memory": [
        ("scale/test_larger_than_memory.py", "test_a_bad_value_anywhere_is_found")
    ],
    "a clock that runs backwards": [
        (TRAINING, "test_a_clock_that_runs_backwards_changes_nothing")
    ],
    "a missing package": [
        (AROUND, "test_missing_packages_are_named_with_the_command_that_installs_them")
    ],
}  # fmt: skip

PROPERTIES = {
    "fit and answers leave X alone, are finite, of the right shape and dtype, or refuse clearly": [
        ("test_properties.py", "test_any_table_gives_finite_answers_or_a_clear_refusal")
    ],
    "a saved model gives the same scores to the last bit": [
        ("test_properties.py", "test_saved_and_loaded_is_the_same"),
        ("test_persistence.py", "test_round_trip_is_bitwise"),
    ],
    "rows answer for themselves in any order and company": [
        ("test_properties.py", "test_rows_answer_for_themselves"),
        ("test_contract.py", "test_rows_are_independent_of_their_company"),
    ],
    "score is the mean of score_samples": [
        ("test_contract.py", "test_score_is_the_mean_of_score_samples")
    ],
    "gradients of energies are those of finite differences": [
        ("test_properties.py", "test_energy_gradients_are_those_of_finite_differences"),
        ("energies/test_deep.py", "test_closed_derivatives_are_finite_differences"),
    ],
    "the exact log Z is the sum over all states": [
        ("inference/test_enumeration.py", "test_log_partition_is_the_sum_over_all_pairs_of_states")
    ],
    "annealed intervals hold the truth in 95 of 100 seeds": [
        ("inference/test_ais.py", "test_the_interval_holds_the_truth_in_95_of_100_seeds")
    ],
    "every kernel leaves its distribution invariant": [
        ("inference/test_gibbs.py", "test_the_stationary_vector_of_the_kernel_is_p"),
        ("inference/test_samplers.py", "test_corrected_samplers_leave_p_invariant"),
        (TEMPERING, "test_every_temperature_stays_at_its_own_distribution"),
    ],
    "sparse codes are optimal, and the objective never rises": [
        ("inference/test_sparse.py", "test_the_objective_never_rises"),
        ("inference/test_sparse.py", "test_optimality_conditions_hold_to_machine_precision"),
    ],
    "Lloyd's steps never raise the inertia": [
        ("test_properties.py", "test_more_lloyd_iterations_never_raise_the_inertia")
    ],
    "whitened rows have the identity as covariance": [
        ("test_properties.py", "test_whitened_rows_have_the_identity_as_covariance")
    ],
    "penalties are never negative": [("test_properties.py", "test_penalties_are_never_negative")],
    "training beats its start on rows held out": [
        ("test_contract.py", "test_training_beats_the_initialisation_on_held_out_rows"),
        ("test_contract.py", "test_learns_the_dependence_between_features"),
    ],
    "scores vary": [("test_contract.py", "test_scores_vary")],
    "mutated files are refused or load as valid models": [
        ("faults/test_fuzz_load.py", "test_changed_bytes_are_refused_or_change_nothing"),
        ("faults/test_fuzz_load.py", "test_changed_content_is_refused_or_a_valid_model"),
    ],
    "fitted state holds no training rows": [
        ("faults/test_training_data.py", "test_fitted_state_holds_no_training_row"),
        ("faults/test_training_data.py", "test_training_state_can_be_dropped"),
    ],
}  # fmt: skip
CATALOGUE = FAULTS | PROPERTIES


@pytest.mark.parametrize("subject", CATALOGUE)
def test_every_subject_has_its_tests(subject):
    for file, name in CATALOGUE[subject]:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
