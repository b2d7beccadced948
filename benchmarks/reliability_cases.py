"""The faults of the reliability table, and what shows that each is met: tests, and scripts of this folder.

``file::function`` names a test of tests/ with all its parameters, ``file::function[words]`` those whose parameters
contain the words; ``fuzz: KIND ...`` and ``kills: WORKERS`` are run by `reliability.py` itself.
"""

from __future__ import annotations

_API, _CLI = "recon/test_api.py", "recon/test_cli.py"
_BOUNDARY, _SUPPORT = "recon/test_boundary.py", "recon/test_support.py"
_SAFETY, _FASTMRI = "recon/priors/test_checkpoint_safety.py", "recon/modalities/mri/test_fastmri.py"
_ISMRMRD, _NPY = "recon/modalities/mri/test_ismrmrd.py", "recon/modalities/mri/test_kspace_npy.py"
_BOMBS, _NIFTI = "recon/files/test_bombs.py", "recon/files/test_nifti_read.py"
_DICOM, _CTPD = "recon/modalities/ct/test_dicom_images.py", "recon/modalities/ct/test_dicom_ctpd.py"
_CT, _US = "recon/modalities/ct/test_ct_prepare.py", "recon/modalities/ultrasound/test_ultrasound_prepare.py"
_LOOP, _MEMORY, _DETERMINISM = (f"samplers/test_{name}.py" for name in ("loop", "memory", "determinism"))
_RESUME, _PROCESSES, _MANY = (f"recon/study/test_{name}.py" for name in ("resume", "processes", "many"))
_DISK, _LOCK = "recon/files/test_full_disk.py", "recon/files/test_lock.py"
_HEADERS = f"{_DICOM}::test_contradicting_headers"
_FIELDS = f"{_NIFTI}::test_damaged_fields_are_named"

#: By group and case.
CASES: dict[str, dict[str, list[str]]] = {
    "A checkpoints": {
        "pickle that runs code": [
            f"{_SAFETY}::test_1_2_pickles_that_run_code[directly]",
            f"{_SAFETY}::test_code_in_a_pickle_by_indirect_names",
        ],
        "pickle that runs code, nested": [f"{_SAFETY}::test_1_2_pickles_that_run_code[nested]"],
        "legacy tar": [f"{_SAFETY}::test_3_legacy_tar"],
        "zip bomb": [
            f"{_SAFETY}::test_4_zip_bomb",
            f"{_SAFETY}::test_4_a_tensor_that_claims_more_than_it_stores",
        ],
        "truncated at 10 %": [f"{_SAFETY}::test_5_6_7_truncated[0.1]"],
        "truncated at 50 %": [f"{_SAFETY}::test_5_6_7_truncated[0.5]"],
        "truncated at 99 %": [f"{_SAFETY}::test_5_6_7_truncated[0.99]"],
        "flipped byte": [
            f"{_SAFETY}::test_8_flipped_byte",
            f"{_SAFETY}::test_8_any_flipped_byte_is_refused_or_harmless",
        ],
        "NaN or infinite weights": [f"{_SAFETY}::test_9_weights_that_are_not_finite"],
        "wrong shape": [f"{_SAFETY}::test_10_wrong_shape"],
        "missing or extra key": [f"{_SAFETY}::test_11_missing_and_unexpected_keys"],
        "checksum mismatch": [f"{_SAFETY}::test_12_sha256"],
    },
    "B HDF5 and ISMRMRD": {
        "empty file": [f"{_FASTMRI}::test_empty_missing_and_folder"],
        "truncated near the start": [f"{_FASTMRI}::test_truncated[0.02]"],
        "truncated in the middle": [f"{_FASTMRI}::test_truncated[0.5]", f"{_ISMRMRD}::test_truncated_file"],
        "truncated near the end": [f"{_FASTMRI}::test_truncated[0.99]"],
        "missing dataset": [
            f"{_FASTMRI}::test_missing_dataset_lists_what_is_there",
            f"{_ISMRMRD}::test_header_without_acquisitions",
        ],
        "wrong dtype": [f"{_FASTMRI}::test_wrong_dtype", f"{_ISMRMRD}::test_damaged_acquisitions"],
        "wrong rank": [f"{_FASTMRI}::test_wrong_rank"],
        "small file that declares 200 GiB": [
            f"{_FASTMRI}::test_small_file_that_declares_200_gib",
            f"{_BOMBS}::test_bombs[HDF5 declared]",
        ],
        "gzip bomb": [f"{_FASTMRI}::test_gzip_bomb", f"{_BOMBS}::test_bombs[HDF5 packed]"],
        "external link": [f"{_FASTMRI}::test_external_link", f"{_FASTMRI}::test_virtual_dataset"],
        "external raw storage": [f"{_FASTMRI}::test_external_raw_storage"],
        "loop of soft links": [f"{_FASTMRI}::test_soft_links"],
        "unknown filter": [f"{_FASTMRI}::test_unknown_filter"],
        "XML entity bomb": [f"{_FASTMRI}::test_xml_entity_bomb"],
    },
    "C DICOM": {
        "no DICM": [f"{_DICOM}::test_not_dicom"],
        "truncated": [f"{_DICOM}::test_truncated_anywhere"],
        "no pixels": [f"{_HEADERS}[contains no pixels]"],
        "65535 x 65535 pixels": [f"{_HEADERS}[65535 x 65535]", f"{_DICOM}::test_compression_bomb"],
        "bits that contradict each other": [
            *(
                f"{_HEADERS}[{words}]"
                for words in ("BitsStored 17", "HighBit", "PixelData has 240", "pixels of 32 bits")
            ),
            f"{_DICOM}::test_bits_that_are_not_used",
        ],
        "several series in a folder": [f"{_DICOM}::test_several_series"],
        "bad transfer syntax": [f"{_DICOM}::test_bad_transfer_syntax"],
        "patient data in no message": [
            f"{_DICOM}::test_patient_is_in_no_message_no_log_and_no_repr",
            f"{_CTPD}::test_no_patient_in_what_the_reader_keeps",
            f"{_BOUNDARY}::test_no_identifiers_in_python_either",
        ],
    },
    "D NIfTI": {
        "truncated": [f"{_NIFTI}::test_truncated[a.nii]"],
        "truncated gzip": [f"{_NIFTI}::test_truncated[a.nii.gz]", f"{_NIFTI}::test_checksum"],
        "gzip bomb": [f"{_BOMBS}::test_bombs[nifti]"],
        "32000^3 voxels": [f"{_FIELDS}[dim: 32000 x 32000]"],
        "negative dimension": [f"{_FIELDS}[42-<3h-values4]"],
        "NaN in the affine": [f"{_FIELDS}[srow]", f"{_FIELDS}[pixdim]"],
        "NaN voxel": [f"{_NIFTI}::test_voxels_that_are_not_finite"],
        "wrong byte order": [f"{_FIELDS}[0->i]"],
    },
    "E npy, npz, JSON, TOML": {
        "array of objects": [
            f"{_NPY}::test_objects_are_refused_without_unpickling",
            f"{_NPY}::test_archive_with_an_object_array",
        ],
        "header of 7 TiB": [f"{_NPY}::test_hostile_headers[declares .* bytes]"],
        "members outside of the archive": [f"{_NPY}::test_members_outside_of_the_archive_are_never_written"],
        "deep nesting": [
            f"{_BOUNDARY}::test_bad_json[nesting]",
            f"{_SUPPORT}::test_bad_toml[nesting]",
            f"{_BOUNDARY}::test_every_reader_of_a_card_refuses_nested_brackets",
        ],
        "bytes that are no UTF-8": [f"{_BOUNDARY}::test_bad_json[UTF-8]", f"{_SUPPORT}::test_bad_toml[UTF-8]"],
        "unknown key": [f"{_SUPPORT}::test_bad_toml[unknown]", f"{_SAFETY}::test_cards_that_make_no_sense[unknown]"],
    },
    "F arrays and physics": {
        "NaN in k-space": [
            f"{_FASTMRI}::test_values_that_are_not_finite[nan]",
            f"{_API}::test_bad_input_gets_one_clear_line[NaN]",
        ],
        "infinity in k-space": [f"{_FASTMRI}::test_values_that_are_not_finite[inf]"],
        "k-space of zeros": [f"{_FASTMRI}::test_slice_of_zeros", f"{_API}::test_bad_input_gets_one_clear_line[zeros]"],
        "empty mask": [
            f"{_LOOP}::test_an_empty_mask_gives_prior_samples",
            f"{_API}::test_an_empty_measurement_is_said_to_be_one",
            f"{_API}::test_bad_input_gets_one_clear_line[empty mask]",
        ],
        "full mask": [
            "operators/test_mri.py::test_full_sampling_with_normalised_maps_is_unitary",
            "samplers/test_low_snr.py::test_a_fully_sampled_scan_has_its_exact_mean_and_spread",
        ],
        "no coils": [f"{_FASTMRI}::test_no_coils", f"{_API}::test_bad_input_gets_one_clear_line[no coils]"],
        "another number of coils": [
            f"{_API}::test_bad_input_gets_one_clear_line[coil mismatch]",
            "operators/test_mri.py::test_data_of_another_coil_number_are_refused",
        ],
        "coil maps of zeros": [
            f"{_API}::test_bad_input_gets_one_clear_line[zero maps]",
            "operators/test_mri.py::test_zero_maps_give_zero",
        ],
        "odd and 1 x N sizes": [
            f"{_API}::test_odd_sizes",
            f"{_API}::test_bad_input_gets_one_clear_line[1 x N]",
            "operators/test_laws.py::test_mri_laws_hold_for_any_shape",
        ],
        "double precision": [
            f"{_API}::test_non_contiguous_double_precision_input",
            f"{_FASTMRI}::test_double_precision_is_accepted",
            f"{_FASTMRI}::test_values_beyond_single_precision",
        ],
        "non-contiguous arrays": [
            f"{_API}::test_non_contiguous_double_precision_input",
            "operators/test_mri.py::test_takes_arrays_of_any_memory_layout",
        ],
        "noise level of zero": [f"{_LOOP}::test_noise_free_data_get_the_documented_floor"],
        "negative noise level": [
            f"{_LOOP}::test_impossible_noise_levels_are_refused[-1.0]",
            f"{_API}::test_bad_input_gets_one_clear_line[negative noise]",
        ],
        "NaN as noise level": [
            f"{_LOOP}::test_impossible_noise_levels_are_refused[nan]",
            f"{_API}::test_bad_input_gets_one_clear_line[NaN noise]",
        ],
        "scales of 1e-12 and 1e12": [f"{_API}::test_any_scale_gives_the_same_image"],
        "no views": [
            f"{_CT}::test_scans_that_cannot_be_are_refused",
            "operators/test_ct_geometry.py::test_bad_input_is_named[no angle]",
        ],
        "no elements": [
            f"{_US}::test_acquisitions_that_cannot_be[wrong1]",
            f"{_US}::test_what_cannot_be_is_one_line_and_nothing_is_written",
        ],
        "data of another operator": [f"{_LOOP}::test_data_of_another_operator_are_refused"],
    },
    "G determinism": {
        "the same seed twice": [
            f"{_LOOP}::test_the_same_seed_is_the_same_image_and_another_is_not",
            f"{_CLI}::test_the_same_seed_gives_the_same_file",
        ],
        "batches of 1, 4 and 16": [f"{_DETERMINISM}::test_samples_do_not_depend_on_the_batch_size"],
        "order": [
            f"{_MANY}::test_a_slice_is_the_same_image_alone_and_within_its_volume",
            f"{_MANY}::test_the_order_of_slices_and_files_does_not_matter",
        ],
        "resumed and straight": [
            f"{_LOOP}::test_resuming_goes_on_with_the_next_sample",
            f"{_RESUME}::test_only_missing_slices_are_drawn_and_the_bits_are_the_same",
        ],
        "one and two threads": [f"{_DETERMINISM}::test_samples_do_not_depend_on_the_number_of_threads"],
        "CPU and GPU": [f"{_DETERMINISM}::test_samples_of_a_gpu_are_those_of_the_cpu"],
        "the seed is in the output": [f"{_CLI}::test_run_writes_a_result_that_can_be_loaded"],
        "global generators untouched": [f"{_LOOP}::test_the_global_generators_are_left_alone", "test_no_global_rng.py"],
    },
    "H kill and resume": {
        "SIGKILL at ten random moments": ["kills: 1", f"{_PROCESSES}::test_a_kill_of_everything_releases_the_folder"],
        "SIGTERM": [f"{_PROCESSES}::test_a_signal_ends_a_study_in_one_line[terminated]"],
        "full disk": [
            f"{_DISK}::test_files_that_must_not_grow",
            f"{_DISK}::test_disks_of_many_sizes",
            "test_study_benchmark.py::test_a_study_whose_disk_fills_up_goes_on",
        ],
        "read-only folder": [f"{_CLI}::test_output_that_is_read_only"],
        "stale lock": [f"{_LOCK}::test_the_lock_goes_with_its_process"],
        "corrupt partial result": [
            f"{_RESUME}::test_a_damaged_slice_is_drawn_again",
            "recon/study/test_slice_file.py::test_no_changed_byte_changes_a_result",
        ],
        "changed configuration": [
            f"{_RESUME}::test_changed_options_are_refused_by_name",
            f"{_RESUME}::test_a_changed_source_is_refused",
        ],
    },
    "I memory": {
        "at the first step": [
            f"{_MEMORY}::test_at_any_step[first]",
            f"{_MEMORY}::test_every_such_error_halves_the_batch",
        ],
        "in the middle": [
            f"{_MEMORY}::test_at_any_step[middle]",
            f"{_MEMORY}::test_finished_batches_are_not_drawn_again",
        ],
        "one sample is too many": [
            f"{_MEMORY}::test_one_sample_too_many_is_one_line_that_says_what_to_lower",
            "recon/engine/test_memory.py::test_under_a_real_limit_a_run_ends_well_or_in_one_line",
        ],
        "in the gradient": [f"{_MEMORY}::test_in_the_gradient"],
    },
    "J divergence": {
        "NaN from the network": [
            f"{_LOOP}::test_only_bad_samples_raise_with_step_and_sigma",
            f"{_CLI}::test_a_run_of_bad_samples_fails_and_writes_nothing",
        ],
        "growth": [f"{_LOOP}::test_growth_is_flagged_like_nan"],
        "stagnation of conjugate gradients": [f"{_LOOP}::test_a_solve_that_got_stuck_on_the_way_is_seen"],
        "indefinite Jacobian": [
            "samplers/test_moment_matching.py::test_negative_curvature_is_met_with_the_models_answer",
            "samplers/test_unknown_prior.py::test_a_jacobian_that_is_no_covariance_is_not_used",
            "operators/test_solve.py::TestConjugateGradient::test_indefinite_direction_freezes_its_sample_only",
        ],
        "residual outside of .5 to 2": [
            f"{_API}::test_a_wrong_noise_level_is_noticed",
            "recon/test_verdict.py::test_each_fault_has_its_level_and_its_reason",
        ],
        "one bad sample in a batch": [
            f"{_LOOP}::test_one_bad_sample_is_flagged_and_left_out",
            f"{_API}::test_divergence_is_reported_and_never_hidden",
        ],
    },
    "K mutated files": {
        "HDF5: raw data of every modality, and results": [
            "fuzz: fastmri fastmri-xml ismrmrd lodopab data-exchange picmus uff posterior report"
        ],
        "DICOM": ["fuzz: dicom dicom-ct-pd"],
        "NIfTI": ["fuzz: nii nii-gz nii-ct"],
        "NumPy, BART and MATLAB arrays": ["fuzz: cfl hdr npy npz mat mat-packed"],
        "weights, cards and settings": ["fuzz: safetensors pt card run-toml training-toml calibration"],
    },
}
